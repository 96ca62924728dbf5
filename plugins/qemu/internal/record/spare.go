package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	spareFolder = "spares" // beside vms/
	spareName   = "spare.json"
	spareLock   = "lock"
	formerName  = "vm-%d.json"
)

// Spare is the program of a spare guest, as it was written down before that ran, or that
// of a VM: see NoteFormer.
type Spare struct {
	Owner      string `json:"owner,omitempty"` // of the VM
	UID        uint32 `json:"uid"`
	Mark       string `json:"mark"`
	BootID     string `json:"boot_id"`
	PID        int    `json:"pid,omitempty"` // 0 until it is known
	StartTicks uint64 `json:"start_ticks,omitempty"`
	Waits      bool   `json:"waits,omitempty"` // it is complete
}

// SpareDir is the folder of one spare guest, locked by the process whose spare it is.
type SpareDir struct {
	Note   Spare
	path   string
	unlock func()
}

// Path is a file in it.
func (d SpareDir) Path(name string) string { return filepath.Join(d.path, name) }

// Dir is the folder.
func (d SpareDir) Dir() string { return d.path }

// ClaimSpare makes the folder of a spare with its note in it. fault.Exists when there is
// one of that user.
func (s *Store) ClaimSpare(ctx context.Context, n Spare) (SpareDir, error) {
	const what = "claim folder of spare"
	none := SpareDir{}
	unlock, err := s.lockSpares(ctx, false)
	if err != nil {
		return none, err
	}
	defer unlock()
	d := SpareDir{Note: n, path: filepath.Join(s.spares, formatUID(n.UID))}
	if err := os.Mkdir(d.path, 0o711); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return none, fault.New(fault.Exists, "there is a spare guest of uid %d", n.UID)
		}
		return none, Classify(what, err)
	}
	if d.unlock, err = tryLock(d.path); err == nil {
		err = d.Save()
	}
	if err != nil {
		return none, errors.Join(err, d.Remove())
	}
	return d, nil
}

// Save replaces its note.
func (d SpareDir) Save() error {
	raw, err := json.Marshal(d.Note)
	if err != nil {
		return fault.New(fault.Internal, "encode note of spare: %w", err)
	}
	return WriteFile(d.Path(spareName), append(raw, '\n'), 0o600, os.Getuid())
}

// Remove removes the folder, whose guest has ended or has become a VM.
func (d SpareDir) Remove() error {
	// Its name goes first: a crash leaves a folder that names no program.
	err := os.Remove(d.Path(spareName))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, os.RemoveAll(d.path))
	d.Close()
	return Classify("remove folder of spare", err)
}

// Close gives up the lock and leaves the folder for LostSpares.
func (d SpareDir) Close() {
	if d.unlock != nil {
		d.unlock()
	}
}

// LostSpares gives the spares whose process has ended, locked. One without a note has a
// Mark of "" and no program. An error is about others, which are left as they are.
// It removes what writes have left that were cut short.
func (s *Store) LostSpares(ctx context.Context) ([]SpareDir, error) {
	unlock, err := s.lockSpares(ctx, false)
	if err != nil {
		return nil, err
	}
	defer unlock()
	items, err := os.ReadDir(s.spares)
	if err != nil {
		return nil, Classify("list spares", err)
	}
	var out []SpareDir
	var errs []error
	for _, item := range items {
		if strings.HasPrefix(item.Name(), tmpPrefix) {
			errs = append(errs, Classify("remove half of a note", os.Remove(filepath.Join(s.spares, item.Name()))))
		}
		if _, ours := parseUID(item.Name()); !ours || !item.IsDir() {
			continue
		}
		d, err := s.lostSpare(item.Name())
		if err == nil {
			out = append(out, d)
		} else if !errors.Is(err, fault.Locked) && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}

func (s *Store) lostSpare(name string) (SpareDir, error) {
	d := SpareDir{path: filepath.Join(s.spares, name)}
	var err error
	if d.unlock, err = tryLock(d.path); err != nil {
		return d, err
	}
	raw, err := os.ReadFile(d.Path(spareName))
	if err == nil {
		err = json.Unmarshal(raw, &d.Note)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	d.Close()
	return d, fault.New(fault.Precondition, "read note of spare: %w", err).
		WithHint("end what runs as user %s, if anything does, and remove %s", name, d.path)
}

// NoteFormer keeps what a VM's program is known by outside of the VM's folder, where it
// does not follow from VMID and owner: a VM that was a spare has that one's user for life.
func (s *Store) NoteFormer(ctx context.Context, vmid uint32, n Spare) error {
	raw, err := json.Marshal(n)
	if err != nil {
		return fault.New(fault.Internal, "encode note of former spare: %w", err)
	}
	unlock, err := s.lockSpares(ctx, true)
	if err != nil {
		return err
	}
	defer unlock()
	return WriteFile(s.former(vmid), append(raw, '\n'), 0o600, os.Getuid())
}

// Former gives that note, nil for none.
func (s *Store) Former(vmid uint32) (*Spare, error) {
	raw, err := os.ReadFile(s.former(vmid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var n Spare
	if err == nil {
		err = json.Unmarshal(raw, &n)
	}
	if err != nil {
		return nil, fault.New(fault.Precondition, "read note of former spare: %w", err).
			WithHint("end what runs of vm %d, if anything does, and remove %s", vmid, s.former(vmid))
	}
	return &n, nil
}

// ForgetFormer notes that the program has ended.
func (s *Store) ForgetFormer(vmid uint32) error {
	err := os.Remove(s.former(vmid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return Classify("remove note of former spare", err)
}

func (s *Store) former(vmid uint32) string {
	return filepath.Join(s.spares, fmt.Sprintf(formerName, vmid))
}

// SpareUsers gives the users of all spares, whoever has them.
func (s *Store) SpareUsers() ([]uint32, error) {
	items, err := os.ReadDir(s.spares)
	if err != nil {
		return nil, Classify("list spares", err)
	}
	var out []uint32
	for _, item := range items {
		if uid, ours := parseUID(item.Name()); ours {
			out = append(out, uid)
		}
	}
	return out, nil
}

// formatUID names the folder of a spare.
func formatUID(uid uint32) string { return strconv.FormatUint(uint64(uid), 10) }

func parseUID(name string) (uid uint32, ok bool) {
	n, err := strconv.ParseUint(name, 10, 32)
	return uint32(n), err == nil && formatUID(uint32(n)) == name
}

// lockSpares keeps a folder that has just been made from being taken for a lost one. Those
// who write a note, which must not be taken for one that was cut short, share it.
// It is the byte of VMID 0, which no VM has.
func (s *Store) lockSpares(ctx context.Context, shared bool) (unlock func(), err error) {
	return LockByte(ctx, s.lock, 0, shared)
}

// tryLock is fault.Locked when another has the folder. It falls with the process.
func tryLock(dir string) (unlock func(), err error) {
	once, cancel := context.WithCancel(context.Background())
	cancel()
	return LockByte(once, filepath.Join(dir, spareLock), 0, false)
}
