// Package disk makes qcow2 disks: overlays on a template's, blank ones, copies,
// and snapshots inside them.
package disk
