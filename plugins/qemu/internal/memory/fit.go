package memory

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Maker is raised when templates are made in another way than before, so that older
// ones are no longer used.
const Maker = 1

// Fit is all that a memory template depends on. A VM can start from one whose fit
// is the same in every part.
type Fit struct {
	Maker     int    `json:"maker"` // see Maker
	Name      string `json:"name"`  // of the image
	Version   string `json:"version"`
	Disk      File   `json:"disk"`
	Kernel    File   `json:"kernel"`
	Initrd    File   `json:"initrd"`
	Cores     uint32 `json:"cores"`
	MemoryMiB uint64 `json:"memory_mib"`
	DiskBytes uint64 `json:"disk_bytes"` // of the VM's root disk

	QEMU  File          `json:"qemu"`
	Accel machine.Accel `json:"accel"`
	Host  string        `json:"host,omitempty"` // kernel and processor, where guests see them
	Args  []string      `json:"args"`           // QEMU's, without what differs from VM to VM
}

// File is one file as it was. An upgrade, or a rebuild in its place, changes it.
type File struct {
	Path     string `json:"path"`
	Bytes    int64  `json:"bytes"`
	Modified int64  `json:"modified"` // Unix time in nanoseconds
}

// Look describes the file behind any links. "" is no file.
func Look(path string) (File, error) {
	if path == "" {
		return File{}, nil
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return File{}, fault.New(fault.Precondition, "look at %s: %w", path, err)
	}
	st, err := os.Stat(real)
	if err != nil {
		return File{}, fault.New(fault.Precondition, "look at %s: %w", path, err)
	}
	return File{Path: real, Bytes: st.Size(), Modified: st.ModTime().UnixNano()}, nil
}

// Key names the fit.
func (f Fit) Key() string {
	raw, err := json.Marshal(f)
	if err != nil {
		panic(err) // strings and numbers only
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:16])
}

// Differs says for people what a memory template was made with that is another
// now; "" for nothing.
func (f Fit) Differs(now Fit) string {
	switch {
	case f.QEMU != now.QEMU:
		return "QEMU has been changed since its memory template was made"
	case f.Name != now.Name || f.Version != now.Version || f.Disk != now.Disk || f.Kernel != now.Kernel || f.Initrd != now.Initrd:
		return "the image has been changed since its memory template was made"
	case f.Cores != now.Cores || f.MemoryMiB != now.MemoryMiB || f.DiskBytes != now.DiskBytes:
		return fmt.Sprintf("the memory template is of another size (%d cores, %d MiB, %d bytes of disk)", f.Cores, f.MemoryMiB, f.DiskBytes)
	case f.Accel != now.Accel || f.Host != now.Host:
		return "guests are executed in another way, or on another processor or kernel, than when its memory template was made"
	case f.Maker != now.Maker || !slices.Equal(f.Args, now.Args):
		return "VMs are set up in another way than when its memory template was made"
	}
	return ""
}
