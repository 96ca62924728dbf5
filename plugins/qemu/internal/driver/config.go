package driver

import (
	"fmt"
	"math"
	"path/filepath"
)

// Config is the plugin's configuration, by the names of its schema.
type Config struct {
	Templates   []string `json:"templates"`
	TemplateDir string   `json:"template_dir"`
	VMIDFirst   uint32   `json:"vmid_first"`
	VMIDLast    uint32   `json:"vmid_last"`
	UIDBase     uint32   `json:"uid_base"`
	Accel       string   `json:"accel"`
	QEMUBinary  string   `json:"qemu_binary"`
	TBMiB       uint32   `json:"tcg_tb_mb"`
	// MemoryTemplates is one of the modes; any other value is Off.
	MemoryTemplates string `json:"memory_templates"`
	MemoryCache     string `json:"memory_cache"` // "" for none
	Spares          uint32 `json:"spares"`
}

// Modes of memory templates.
const (
	Auto   = "auto"   // made when a VM of that size has started
	Manual = "manual" // made by WarmTemplate only
	Off    = "off"    // neither made nor used
)

// warms reports whether VMs may start from memory.
func (c Config) warms() bool { return c.MemoryTemplates == Auto || c.MemoryTemplates == Manual }

// spareUID is the first user of spares, behind that of memory templates; endUID is behind
// their last. There are as many as VMs, since a VM that was a spare keeps its user.
func (c Config) spareUID() uint32 { return c.UIDBase + c.VMIDLast + 2 }

func (c Config) endUID() uint32 { return uint32(c.lastUID()) + 1 }

// vmsLastUID is the last user without spares, that of memory templates, and lastUID the
// last with them. They may be more than a uid can be.
func (c Config) vmsLastUID() uint64 { return uint64(c.UIDBase) + uint64(c.VMIDLast) + 1 }

func (c Config) lastUID() uint64 {
	last := c.vmsLastUID()
	if c.Spares > 0 && c.VMIDFirst <= c.VMIDLast {
		last += uint64(c.VMIDLast-c.VMIDFirst) + 1 + uint64(c.Spares)
	}
	return last
}

// Problem is one remark about a configuration.
type Problem struct{ Key, Text string }

// Problems finds what the schema cannot express.
func (c Config) Problems() []Problem {
	var out []Problem
	add := func(wrong bool, key, format string, args ...any) {
		if wrong {
			out = append(out, Problem{key, fmt.Sprintf(format, args...)})
		}
	}
	add(c.VMIDFirst == 0 || c.VMIDFirst > c.VMIDLast, "vmid_first",
		"vmid_first %d and vmid_last %d are no range", c.VMIDFirst, c.VMIDLast)
	add(c.UIDBase < 1000, "uid_base", "uid_base %d would give VMs the uids of system users", c.UIDBase)
	valid := c.vmsLastUID() < math.MaxInt32
	add(!valid, "uid_base",
		"uid_base %d + vmid_last %d is not a valid uid", c.UIDBase, c.VMIDLast)
	add(valid && c.lastUID() >= math.MaxInt32, "spares",
		"spares %d need uids up to %d, which is not valid: lower uid_base or spares", c.Spares, c.lastUID())
	add(len(fmt.Sprintf(InterfacePattern, c.VMIDLast)) > maxInterface, "vmid_last",
		"vmid_last %d makes interface names of more than %d characters", c.VMIDLast, maxInterface)
	add(c.TemplateDir != "" && !filepath.IsAbs(c.TemplateDir), "template_dir", "%q is not an absolute path", c.TemplateDir)
	add(c.MemoryCache != "" && !filepath.IsAbs(c.MemoryCache), "memory_cache", "%q is not an absolute path", c.MemoryCache)
	add(c.Spares > 0 && !c.warms(), "spares", "spares go on from memory templates, which are switched off")
	for _, dir := range c.Templates {
		add(!filepath.IsAbs(dir), "templates", "%q is not an absolute path", dir)
	}
	return out
}
