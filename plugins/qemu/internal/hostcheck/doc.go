// Package hostcheck looks at what this host offers for QEMU guests and says how
// to get what is missing. It changes nothing.
package hostcheck
