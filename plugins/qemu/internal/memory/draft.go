package memory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Draft is the folder of a template that is being made.
type Draft struct {
	Dir  string
	root string
}

// Begin makes a draft. Caller holds the build lock.
func (s *Store) Begin() (*Draft, error) {
	dir, err := os.MkdirTemp(s.root, newPrefix)
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err != nil {
		return nil, record.Classify("make folder of memory template", err)
	}
	return &Draft{Dir: dir, root: s.root}, nil
}

// Path is a file of the draft.
func (d *Draft) Path(name string) string { return filepath.Join(d.Dir, name) }

// RAM makes the file that the guest's memory goes to. Only uid may open it.
func (d *Draft) RAM(bytes int64, uid uint32) (*os.File, error) {
	f, err := os.OpenFile(d.Path(RAMName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, record.Classify("make memory file", err)
	}
	if err := errors.Join(f.Truncate(bytes), f.Chown(int(uid), int(uid))); err != nil {
		_ = f.Close()
		return nil, record.Classify("make memory file", err)
	}
	return f, nil
}

// State makes the file that the guest's state goes to.
func (d *Draft) State() (*os.File, error) {
	f, err := os.OpenFile(d.Path(StateName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return f, record.Classify("make state file", err)
}

// Commit puts the draft in its place, for nobody to write any more. Nothing may
// have its files open by now.
func (d *Draft) Commit(fit Fit) (Template, error) {
	keep := map[string]fs.FileMode{RAMName: 0o400, StateName: 0o400, DiskName: 0o444}
	items, err := os.ReadDir(d.Dir)
	if err != nil {
		return Template{}, record.Classify("finish memory template", err)
	}
	for _, item := range items {
		mode, wanted := keep[item.Name()]
		if wanted {
			err = settle(d.Path(item.Name()), mode)
			delete(keep, item.Name())
		} else {
			err = os.RemoveAll(d.Path(item.Name()))
		}
		if err != nil {
			return Template{}, record.Classify("finish memory template", err)
		}
	}
	if len(keep) > 0 {
		return Template{}, fault.New(fault.Internal, "memory template lacks %v", keep)
	}
	t := Template{Format: formatNumber, Key: fit.Key(), Created: time.Now().UTC().Truncate(time.Second), Fit: fit}
	if err := d.place(t); err != nil {
		return Template{}, err
	}
	t.Used = time.Now()
	return t, nil
}

// place writes the manifest and gives the folder its name.
func (d *Draft) place(t Template) error {
	raw, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return fault.New(fault.Internal, "encode memory template: %w", err)
	}
	if err := record.WriteFile(d.Path(manifestName), append(raw, '\n'), 0o400, os.Getuid()); err != nil {
		return err
	}
	place := filepath.Join(d.root, t.Key)
	err = syscall.Rename(d.Dir, place)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		return fault.New(fault.Precondition, "%s is there and damaged", place).
			WithHint("disks of VMs depend on it: it goes with the last of them")
	}
	if err != nil {
		return record.Classify("finish memory template", err)
	}
	return record.SyncDir(d.root)
}

// Discard removes a draft that was not committed.
func (d *Draft) Discard() error {
	return record.Classify("remove half-made memory template", os.RemoveAll(d.Dir))
}

// settle makes a file root's, of this mode, and last. The mode goes first: who
// opened it to write before has ended.
func settle(path string, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is no plain file", path)
	}
	return errors.Join(f.Chown(os.Getuid(), os.Getgid()), f.Chmod(mode), f.Sync())
}
