// Package driver runs VMs as plain QEMU programs behind the hypervisor
// contract. All it knows is in the files of package record and in the kernel;
// a new driver over the same folder continues where a killed one stopped.
package driver
