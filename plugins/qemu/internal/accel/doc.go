// Package accel decides how guests are executed: by KVM where it truly works,
// else by QEMU's translator. The device alone proves nothing, so a short guest
// loop is timed, and the verdict is remembered until kernel or QEMU change.
package accel
