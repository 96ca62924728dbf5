// Package diskuse finds out who in this guest uses a disk, so that the host does
// not take it away under somebody.
package diskuse
