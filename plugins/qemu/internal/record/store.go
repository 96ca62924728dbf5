package record

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	formatNumber = 1
	// memoryFormat is of a record that names a memory template: an older plugin would
	// not know on which disk the VM's lies, and destroy it.
	memoryFormat = 2
	recordName   = "vm.json"
	maxRecord    = 1 << 20
	newPrefix    = ".new-"
	gonePrefix   = ".gone-"
)

// ErrUnreadable marks a folder whose vm.json is missing, damaged or of another
// format. Nobody may touch such a folder: whose it is cannot be known.
var ErrUnreadable = errors.New("record of the vm cannot be read")

// Store is the folder of all VMs.
type Store struct {
	root   string // <state>/vms
	spares string // <state>/spares
	lock   string // <state>/lock, a byte for each VMID
}

// Open prepares the folders below state. Other users may pass through vms/ and
// spares/, not list them: each program reaches its own files only.
func Open(state string) (*Store, error) {
	const mode = 0o711
	s := &Store{
		root: filepath.Join(state, "vms"), spares: filepath.Join(state, spareFolder), lock: filepath.Join(state, "lock"),
	}
	for _, dir := range []string{s.root, s.spares} {
		if err := errors.Join(os.MkdirAll(dir, mode), os.Chmod(dir, mode)); err != nil {
			return nil, Classify("make state folder", err)
		}
	}
	return s, nil
}

// Root is the folder that holds the VMs.
func (s *Store) Root() string { return s.root }

// Dir is the folder of one VM, there or not.
func (s *Store) Dir(vmid uint32) string {
	return filepath.Join(s.root, strconv.FormatUint(uint64(vmid), 10))
}

// Path is a file of one VM.
func (s *Store) Path(vmid uint32, name string) string { return filepath.Join(s.Dir(vmid), name) }

// Load reads one record: fault.NotFound when there is certainly no such VM,
// ErrUnreadable when there is something that cannot be understood.
func (s *Store) Load(vmid uint32) (*VM, error) {
	if _, err := os.Lstat(s.Dir(vmid)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, s.confirmGone(vmid)
		}
		return nil, Classify("look for the vm", err)
	}
	path := s.Path(vmid, recordName)
	st, err := os.Lstat(path)
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxRecord {
		// The folder may have gone between the two looks.
		if _, err := os.Lstat(s.Dir(vmid)); errors.Is(err, fs.ErrNotExist) {
			return nil, s.confirmGone(vmid)
		}
		return nil, unreadable(vmid, "%s is missing or no plain file", path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadable(vmid, "%v", err)
	}
	var v VM
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, unreadable(vmid, "%v", err)
	}
	if v.Format != formatNumber && v.Format != memoryFormat || v.VMID != vmid || v.Owner == "" {
		return nil, unreadable(vmid, "format %d, vmid %d, owner %q", v.Format, v.VMID, v.Owner)
	}
	return &v, nil
}

// confirmGone lists the folder, because a missing entry proves nothing while
// the folder itself cannot be read.
func (s *Store) confirmGone(vmid uint32) error {
	vmids, err := s.List()
	if err != nil {
		return err
	}
	if slices.Contains(vmids, vmid) {
		return fault.New(fault.Unavailable, "vm %d appeared while it was looked for", vmid)
	}
	return fault.New(fault.NotFound, "vm %d does not exist", vmid).WithResource("vm %d", vmid)
}

func unreadable(vmid uint32, format string, args ...any) error {
	return fault.New(fault.Internal, "%w: "+format, append([]any{ErrUnreadable}, args...)...).
		WithResource("vm %d", vmid).
		WithHint("look at the folder of vm %d; it is left untouched until its vm.json is back or you remove it", vmid)
}

// List gives the VMIDs that have a folder, in order.
func (s *Store) List() ([]uint32, error) {
	items, err := os.ReadDir(s.root)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "list vms: %w", err)
	}
	var out []uint32
	for _, item := range items {
		if n, err := strconv.ParseUint(item.Name(), 10, 32); err == nil {
			out = append(out, uint32(n))
		}
	}
	slices.Sort(out)
	return out, nil
}

// Users gives the users that a VM has: by its record, or by who owns its files
// when that cannot be read. None when there is no such VM.
func (s *Store) Users(vmid uint32) ([]uint32, error) {
	v, err := s.Load(vmid)
	switch {
	case err == nil:
		return []uint32{v.UID}, nil
	case errors.Is(err, fault.NotFound):
		return nil, nil
	case !errors.Is(err, ErrUnreadable):
		return nil, err
	}
	items, err := os.ReadDir(s.Dir(vmid))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Unavailable, "look whose files vm %d has: %w", vmid, err)
	}
	var out []uint32
	for _, item := range items {
		st, err := item.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fault.New(fault.Unavailable, "look whose files vm %d has: %w", vmid, err)
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			out = append(out, sys.Uid)
		}
	}
	return out, nil
}

// Claim makes the VM's folder with its record in it, as one step: there is no
// moment at which a folder exists without an owner. fault.Exists when taken.
func (s *Store) Claim(v *VM) error {
	dir, err := os.MkdirTemp(s.root, newPrefix)
	if err != nil {
		return Classify("make folder", err)
	}
	err = errors.Join(os.Chmod(dir, 0o711), writeRecord(dir, v))
	if err == nil {
		// An empty folder in the way would be replaced, one with content not.
		err = syscall.Rename(dir, s.Dir(v.VMID))
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.ENOTDIR) {
			return fault.New(fault.Exists, "vm %d exists already", v.VMID).WithResource("vm %d", v.VMID)
		}
		return Classify("claim vm", err)
	}
	return SyncDir(s.root)
}

// Save replaces the record of a claimed VM and makes it last.
func (s *Store) Save(v *VM) error { return writeRecord(s.Dir(v.VMID), v) }

// Remove frees the folder. The rename is the moment at which the VM is gone; a
// crash after it leaves only a name that Sweep removes.
func (s *Store) Remove(vmid uint32) error {
	// A fresh name, not a fresh folder: a full disk must not stop its emptying.
	grave := filepath.Join(s.root, fmt.Sprintf("%s%d-%s", gonePrefix, vmid, rand.Text()))
	if err := syscall.Rename(s.Dir(vmid), grave); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return Classify("remove vm", err)
	}
	return errors.Join(SyncDir(s.root), Classify("remove vm", os.RemoveAll(grave)))
}

// Sweep removes what interrupted calls left behind. Call it before any other
// call can run.
func (s *Store) Sweep() error {
	items, err := os.ReadDir(s.root)
	if err != nil {
		return Classify("sweep state folder", err)
	}
	var errs []error
	for _, item := range items {
		if strings.HasPrefix(item.Name(), newPrefix) || strings.HasPrefix(item.Name(), gonePrefix) {
			errs = append(errs, os.RemoveAll(filepath.Join(s.root, item.Name())))
		}
	}
	return errors.Join(errs...)
}

func (v *VM) format() int {
	if v.Memory != nil {
		return memoryFormat
	}
	return formatNumber
}

func writeRecord(dir string, v *VM) error {
	v.Format = v.format()
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fault.New(fault.Internal, "encode record: %w", err)
	}
	return WriteFile(filepath.Join(dir, recordName), append(raw, '\n'), 0o600, os.Getuid())
}
