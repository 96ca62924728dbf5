// Package testhost gives tests what real QEMU guests need: a network namespace
// of their own, taps, a state folder that VMs' users can pass, and templates of
// one boot sector each. Only tests import it.
package testhost
