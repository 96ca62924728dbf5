// Package vport opens the virtio-serial port on which the host speaks to the
// guest, and makes of the kernel's signs that a client of the host came or went
// what sdk/channel understands.
package vport
