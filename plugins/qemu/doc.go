// Command agentlab-plugin-qemu runs sandboxes as plain QEMU programs on any
// Linux host, with KVM where it works and by emulation elsewhere. Guests
// outlive the plugin; all it knows of them is in its state folder.
package main
