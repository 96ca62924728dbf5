// Package bugreport writes a bundle of text files that can be attached to a bug
// report. Everything that goes in is bounded and scrubbed: known secrets, and
// what looks like one. The patterns miss what looks like nothing in particular,
// which is why the bundle's README asks its reader to look first.
package bugreport
