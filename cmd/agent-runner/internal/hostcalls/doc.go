// Package hostcalls answers the calls that the host makes over the guest's
// virtio-serial port.
package hostcalls
