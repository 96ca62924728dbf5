// Package machine renders the QEMU command line of a VM. It is pure: the same
// Machine gives the same arguments.
package machine
