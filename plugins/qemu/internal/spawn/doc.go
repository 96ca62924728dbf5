// Package spawn starts a QEMU that outlives this program: an own session, an
// own user, an own scope where systemd runs, and only the descriptors meant
// for it.
package spawn
