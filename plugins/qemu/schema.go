package main

import (
	"github.com/agentlab/agentlab/plugins/qemu/internal/driver"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// vmidMax keeps VMIDs within what an interface name and a uid can carry.
const vmidMax = 99_999_999

// uidBase is where neither accounts, nor the ids delegated to them, nor those
// of systemd's containers begin or end.
const uidBase = 1_900_000_000

func schema() *plugin.Schema {
	return &plugin.Schema{Version: 1, Block: plugin.Block{
		Description: "Runs sandboxes with QEMU on this host.",
		Attributes: []plugin.Attribute{
			{
				Name: "templates", Type: plugin.List(plugin.String), Default: []string{},
				Description: "Image folders, each with a `manifest.json`. They win over those of `template_dir`.",
				Example:     []string{"/srv/images/debian-12-0123456789ab"},
			},
			{
				Name: "template_dir", Type: plugin.String, Default: "/var/cache/agentlab/images",
				Description: "Folder whose sub-folders are image folders; of several with the same VMID the newest is used. Empty for none.",
			},
			{
				Name: "vmid_first", Type: plugin.Number, Default: 1000, Min: plugin.Limit(1), Max: plugin.Limit(vmidMax),
				Description: "First VMID given to a sandbox.",
			},
			{
				Name: "vmid_last", Type: plugin.Number, Default: 1999, Min: plugin.Limit(1), Max: plugin.Limit(vmidMax),
				Description: "Last VMID given to a sandbox.",
			},
			{
				Name: "uid_base", Type: plugin.Number, Default: uidBase, Min: plugin.Limit(1000), Max: plugin.Limit(2_000_000_000),
				Description: "The QEMU of a VM runs as user and group `uid_base` + VMID, that of a memory template in the making as `uid_base` + `vmid_last` + 1, and `qemu-img` on volumes as `uid_base` + `vmid_first` - 1. Spares, and VMs that were one, have the numbers from `uid_base` + `vmid_last` + 2 on, as many as there are VMIDs and `spares`. No account may use these numbers, nor have them in /etc/subuid, and no other instance on this host.",
			},
			{
				Name: "accel", Type: plugin.String, Default: "auto", OneOf: []string{"auto", "kvm", "tcg"},
				Description: "How guests are executed: by KVM, by emulation (tcg), or by KVM where a probe shows that it works.",
			},
			{
				Name: "qemu_binary", Type: plugin.String, Default: "qemu-system-x86_64",
				Description: "QEMU for x86_64, 7.2 or later, as a path or a name in PATH.",
			},
			{
				Name: "tcg_tb_mb", Type: plugin.Number, Default: 256, Min: plugin.Limit(16), Max: plugin.Limit(4096),
				Description: "MiB of translated code kept per emulated VM.",
			},
			{
				Name: "memory_templates", Type: plugin.String, Default: driver.Auto, OneOf: []string{driver.Auto, driver.Manual, driver.Off},
				Description: "Whether VMs start from the memory of one that has booted already, instead of booting: `auto` makes such a template in the background once a VM of a new image or size has booted, `manual` only by `agentlab template warm`, `off` neither makes nor uses one. One takes about 200 MB of disk, and as much memory while VMs start from it.",
			},
			{
				Name: "memory_cache", Type: plugin.String, Default: "/var/cache/agentlab/memory",
				Description: "Folder through which the daemons of this host share memory templates, and in which they outlive a throw-away daemon. Empty for none.",
			},
			{
				Name: "spares", Type: plugin.Number, Default: 0, Min: plugin.Limit(0), Max: plugin.Limit(32),
				Description: "How many guests are kept waiting, started from the memory template that was used last, for the next VM of that image and size: it is then ready in less than half the time. A waiting one takes about 110 MB of memory and no processor; emulated, one is made in about three seconds of a processor.",
			},
		},
	}}
}
