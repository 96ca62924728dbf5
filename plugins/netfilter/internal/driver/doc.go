// Package driver implements the network contract with a bridge, taps, nftables
// and conntrack.
//
// The kernel holds all of its state: which sandboxes are attached, and how, is
// read from the rules each time. Changes are made in an order that keeps a
// sandbox shut at every moment between two steps: rules before a tap joins the
// bridge, the tap gone before its rules.
package driver
