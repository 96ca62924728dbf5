// Package world keeps the simulated world in a directory: VMs, attachments,
// exposures, bundles, and what the guests have on their disks. Every process
// that opens the directory sees the same world, whatever was killed before.
//
// A change is made under one lock and is either there whole or not at all. Each
// is written to effects.log with a number, so that a test can tell what really
// happened. faults.json makes calls slow, fail or hang, and kills the daemon or
// the plugin before or after a chosen effect; see Fault.
package world
