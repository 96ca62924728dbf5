// Package qmp speaks QEMU's machine protocol over the monitor socket: one
// connection, one command at a time, every wait bounded.
package qmp
