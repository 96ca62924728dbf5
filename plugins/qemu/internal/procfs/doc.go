// Package procfs finds, watches and ends the programs of VMs. A program is
// known by pid, start time, user and the mark in its arguments together; a pid
// alone is never trusted, because the kernel gives it out again.
package procfs
