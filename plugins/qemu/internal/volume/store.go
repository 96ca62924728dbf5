package volume

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	formatNumber = 1
	recordName   = "volume.json"
	diskName     = "disk.qcow2"
	maxRecord    = 1 << 20
	newPrefix    = ".new-"
	gonePrefix   = ".gone-"
)

// ErrUnreadable marks a folder whose volume.json is missing, damaged or of
// another format. Nobody may touch such a folder: whose it is cannot be known.
var ErrUnreadable = errors.New("record of the volume cannot be read")

// Store is the folder of all volumes.
type Store struct {
	root string // <state>/volumes
	lock string // <state>/volumes.lock, a byte for each ID
}

// Open prepares the folder below state. Other users may pass through, not list
// it.
func Open(state string) (*Store, error) {
	const mode = 0o711
	s := &Store{root: filepath.Join(state, "volumes"), lock: filepath.Join(state, "volumes.lock")}
	if err := os.MkdirAll(s.root, mode); err != nil {
		return nil, record.Classify("make folder of volumes", err)
	}
	if err := os.Chmod(s.root, mode); err != nil {
		return nil, record.Classify("make folder of volumes", err)
	}
	return s, nil
}

// Disk is the file of a volume.
func (s *Store) Disk(id string) string { return filepath.Join(s.root, id, diskName) }

func notFound(id string) error {
	return fault.New(fault.NotFound, "volume %q does not exist", id).WithResource("volume %s", id)
}

func unreadable(id, format string, args ...any) error {
	return fault.New(fault.Internal, "%w: "+format, append([]any{ErrUnreadable}, args...)...).
		WithResource("volume %s", id).
		WithHint("look at the folder of volume %s; it is left untouched until its %s is back or you remove it", id, recordName)
}

// Load reads one record: fault.NotFound when there is certainly no such volume,
// ErrUnreadable when there is something that cannot be understood.
func (s *Store) Load(id string) (*Volume, error) {
	if !validID.MatchString(id) {
		return nil, notFound(id)
	}
	dir := filepath.Join(s.root, id)
	raw, err := readBounded(filepath.Join(dir, recordName))
	if err != nil {
		if _, gone := os.Lstat(dir); errors.Is(gone, fs.ErrNotExist) {
			// A missing entry proves nothing while the folder cannot be read.
			if _, err := s.ids(); err != nil {
				return nil, err
			}
			return nil, notFound(id)
		}
		return nil, unreadable(id, "%v", err)
	}
	var v Volume
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, unreadable(id, "%v", err)
	}
	if v.Format != formatNumber || v.ID != id || v.Owner == "" {
		return nil, unreadable(id, "format %d, id %q, owner %q", v.Format, v.ID, v.Owner)
	}
	return &v, nil
}

func readBounded(path string) ([]byte, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxRecord {
		return nil, fmt.Errorf("%s is no plain file of at most %d bytes", path, maxRecord)
	}
	return os.ReadFile(path)
}

func (s *Store) ids() ([]string, error) {
	items, err := os.ReadDir(s.root)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "list volumes: %w", err)
	}
	var out []string
	for _, item := range items {
		if validID.MatchString(item.Name()) {
			out = append(out, item.Name())
		}
	}
	return out, nil
}

// Of lists the volumes that a VM has, but for those whose record cannot be read:
// one that is damaged is left alone and stops no VM.
func (s *Store) Of(vmid uint32, owner string) (out []*Volume, err error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		v, err := s.Load(id)
		if errors.Is(err, fault.NotFound) || errors.Is(err, ErrUnreadable) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if v.To(vmid, owner) {
			out = append(out, v)
		}
	}
	return out, nil
}

// Claim makes the volume's folder with its record in it, as one step.
// fault.Exists when it is there.
func (s *Store) Claim(v *Volume) error {
	dir, err := os.MkdirTemp(s.root, newPrefix)
	if err != nil {
		return record.Classify("make folder", err)
	}
	v.Format = formatNumber
	err = errors.Join(os.Chmod(dir, 0o711), write(dir, v))
	if err == nil {
		err = syscall.Rename(dir, filepath.Join(s.root, v.ID))
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) || errors.Is(err, syscall.ENOTDIR) {
			return fault.New(fault.Exists, "volume %s exists already", v.ID).WithResource("volume %s", v.ID)
		}
		return record.Classify("claim volume", err)
	}
	return record.SyncDir(s.root)
}

// Save replaces the record of a claimed volume and makes it last.
func (s *Store) Save(v *Volume) error { return write(filepath.Join(s.root, v.ID), v) }

func write(dir string, v *Volume) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fault.New(fault.Internal, "encode record: %w", err)
	}
	return record.WriteFile(filepath.Join(dir, recordName), append(raw, '\n'), 0o600, os.Getuid())
}

// Remove frees the folder. The rename is the moment at which the volume is gone;
// a crash after it leaves only a name that Sweep removes.
func (s *Store) Remove(id string) error {
	grave := filepath.Join(s.root, gonePrefix+id+"-"+rand.Text())
	if err := syscall.Rename(filepath.Join(s.root, id), grave); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return record.Classify("remove volume", err)
	}
	return errors.Join(record.SyncDir(s.root), record.Classify("remove volume", os.RemoveAll(grave)))
}

// Sweep removes what interrupted calls left behind. Call it before any other
// call can run.
func (s *Store) Sweep() error {
	items, err := os.ReadDir(s.root)
	if err != nil {
		return record.Classify("sweep folder of volumes", err)
	}
	var errs []error
	for _, item := range items {
		if strings.HasPrefix(item.Name(), newPrefix) || strings.HasPrefix(item.Name(), gonePrefix) {
			errs = append(errs, os.RemoveAll(filepath.Join(s.root, item.Name())))
		}
	}
	return errors.Join(errs...)
}

// Lock makes the caller the only one who changes these volumes, as record.Store
// does for VMs. A VM's lock is taken before that of its volume. fault.Locked when
// ctx ends first.
func (s *Store) Lock(ctx context.Context, ids ...string) (unlock func(), err error) {
	var held []func()
	unlock = func() {
		for _, free := range held {
			free()
		}
	}
	ids = slices.Clone(ids)
	slices.Sort(ids) // one order for all, so that no two wait for each other
	for _, id := range slices.Compact(ids) {
		free, err := record.LockByte(ctx, s.lock, place(id), false)
		if err != nil {
			unlock()
			if errors.Is(err, fault.Locked) {
				err = fault.New(fault.Locked, "volume %s is busy with another call: %w", id, ctx.Err()).
					WithResource("volume %s", id)
			}
			return nil, err
		}
		held = append(held, free)
	}
	return unlock, nil
}

// place is a byte for each volume; that two may share one does no harm.
func place(id string) int64 {
	raw, err := hex.DecodeString(id)
	if err != nil || len(raw) != idBytes {
		return 0
	}
	return int64(binary.BigEndian.Uint64(raw) >> 2)
}
