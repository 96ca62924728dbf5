package template

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/disk"
	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	manifestName = "manifest.json"
	maxManifest  = 64 << 10
	formatNumber = 1
)

// Template is one image folder that was found whole. Paths are absolute.
type Template struct {
	Dir       string
	VMID      uint32
	Name      string
	Version   string
	Disk      string // qcow2 without a backing file
	DiskBytes uint64 // virtual size
	DiskBus   machine.Bus
	Kernel    string // "" boots by firmware from the disk
	Initrd    string
	Cmdline   string
	SSHUser   string
	Agents    []string
	Modified  time.Time // of the manifest
}

// manifest is the file as the image recipe writes it. Keys that only other
// readers need are not listed; the decoder lets them pass.
type manifest struct {
	Format           int      `json:"format"`
	Name             string   `json:"name"`
	VMID             uint32   `json:"vmid"`
	Version          string   `json:"version"`
	Arch             string   `json:"arch"`
	Disk             string   `json:"disk"`
	DiskFormat       string   `json:"disk_format"`
	DiskVirtualBytes uint64   `json:"disk_virtual_bytes"`
	DiskBus          string   `json:"disk_bus"` // "" is virtio-blk
	Kernel           string   `json:"kernel"`
	Initrd           string   `json:"initrd"`
	Cmdline          string   `json:"cmdline"`
	SSHUser          string   `json:"ssh_user"`
	Agents           []string `json:"agents"`
}

// Load reads one folder. Errors are fault.Invalid and say what is wrong. The
// Template holds whatever could be read, so that a broken one can be named.
func Load(dir string) (Template, error) {
	t := Template{Dir: dir, Name: filepath.Base(dir)}
	if !filepath.IsAbs(dir) {
		return t, fault.New(fault.Invalid, "template folder %q is not an absolute path", dir)
	}
	path := filepath.Join(dir, manifestName)
	st, err := os.Stat(path)
	if err != nil {
		return t, fault.New(fault.Invalid, "read manifest: %w", err)
	}
	if st.Size() > maxManifest {
		return t, fault.New(fault.Invalid, "%s is larger than %d bytes", path, maxManifest)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return t, fault.New(fault.Invalid, "read manifest: %w", err)
	}
	var m manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return t, fault.New(fault.Invalid, "decode %s: %w", path, err)
	}
	t.VMID, t.Version, t.SSHUser, t.Agents = m.VMID, m.Version, m.SSHUser, m.Agents
	t.Cmdline, t.DiskBytes, t.Modified = m.Cmdline, m.DiskVirtualBytes, st.ModTime()
	t.DiskBus = machine.Bus(cmp.Or(m.DiskBus, string(machine.VirtioBlk)))
	if m.Name != "" {
		t.Name = m.Name
	}
	if err := m.check(); err != nil {
		return t, err
	}
	return t, t.resolve(m)
}

func (m manifest) check() error {
	switch {
	case m.Format != formatNumber:
		return fault.New(fault.Invalid, "manifest format %d is not %d", m.Format, formatNumber).
			WithHint("build the image again with this version")
	case m.Name == "":
		return fault.New(fault.Invalid, "manifest has no name")
	case m.VMID == 0:
		return fault.New(fault.Invalid, "manifest has no vmid")
	case m.Arch != "" && m.Arch != "x86_64":
		return fault.New(fault.Invalid, "architecture %q is not x86_64", m.Arch)
	case m.DiskFormat != "qcow2":
		return fault.New(fault.Invalid, "disk format %q is not qcow2", m.DiskFormat)
	case !slices.Contains([]machine.Bus{"", machine.VirtioBlk, machine.VirtioSCSI}, machine.Bus(m.DiskBus)):
		return fault.New(fault.Invalid, "disk bus %q is not %s or %s", m.DiskBus, machine.VirtioBlk, machine.VirtioSCSI)
	case m.Kernel == "" && (m.Initrd != "" || m.Cmdline != ""):
		return fault.New(fault.Invalid, "manifest has an initrd or cmdline but no kernel")
	case strings.ContainsAny(m.Cmdline, "\n\x00"):
		return fault.New(fault.Invalid, "cmdline holds a line break or NUL")
	}
	return nil
}

func (t *Template) resolve(m manifest) error {
	for _, f := range []struct {
		key, name string
		to        *string
		optional  bool
	}{
		{"disk", m.Disk, &t.Disk, false},
		{"kernel", m.Kernel, &t.Kernel, true},
		{"initrd", m.Initrd, &t.Initrd, true},
	} {
		if f.name == "" && f.optional {
			continue
		}
		path, err := inside(t.Dir, f.name)
		if err != nil {
			return fault.New(fault.Invalid, "manifest key %s: %w", f.key, err)
		}
		*f.to = path
	}
	size, err := disk.Standalone(t.Disk)
	if err != nil {
		return fault.New(fault.Invalid, "check disk: %w", err)
	}
	if m.DiskVirtualBytes != 0 && m.DiskVirtualBytes != size {
		return fault.New(fault.Invalid, "disk has %d bytes, the manifest says %d", size, m.DiskVirtualBytes)
	}
	t.DiskBytes = size
	return nil
}

// inside allows plain files that lie in the folder itself: no sub-folder, no
// symbolic link, so a manifest cannot name another file of the host.
func inside(dir, name string) (string, error) {
	if name == "" || name != filepath.Base(name) || name == "." || name == ".." {
		return "", fmt.Errorf("%q is not the name of a file in the folder", name)
	}
	path := filepath.Join(dir, name)
	st, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("%q is not a plain file", name)
	}
	if st.Mode().Perm()&0o004 == 0 {
		return "", fmt.Errorf("%q is not readable for the VM's own user (mode %04o)", name, st.Mode().Perm())
	}
	return path, nil
}
