// Package procfs finds, watches and ends the programs of VMs. A program is
// known by pid, start time and user together; a pid alone is never trusted,
// because the kernel gives it out again. Nothing that a program can change about
// itself counts: a QEMU may be its guest's.
package procfs
