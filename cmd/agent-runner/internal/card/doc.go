// Package card configures the one network card of a guest, through the kernel's
// netlink and without a program.
package card
