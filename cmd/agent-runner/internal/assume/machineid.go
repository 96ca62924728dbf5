package assume

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
)

// newMachineID gives the guest another one, everywhere that it is kept.
func newMachineID(l layout.Layout) error {
	old, err := os.ReadFile(l.At("/etc/machine-id"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read machine id: %w", err)
	}
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails, see crypto/rand
	raw[6] = raw[6]&0x0f | 0x40
	raw[8] = raw[8]&0x3f | 0x80 // a random UUID, as systemd makes one
	id := hex.EncodeToString(raw[:])
	if err := replace(l, "/etc/machine-id", id); err != nil {
		return err
	}
	for _, copied := range []string{"/run/machine-id", "/var/lib/dbus/machine-id"} {
		if st, err := os.Lstat(l.At(copied)); err != nil || !st.Mode().IsRegular() {
			continue // absent, or a link to the first
		}
		if err := replace(l, copied, id); err != nil {
			return err
		}
	}
	return keepJournal(l, strings.TrimSpace(string(old)), id)
}

// replace writes the file anew, in its place where something is mounted on it.
func replace(l layout.Layout, path, id string) error {
	err := l.Write(l.At(path), []byte(id+"\n"), 0o444, layout.Owner{})
	if errors.Is(err, syscall.EBUSY) {
		err = os.WriteFile(l.At(path), []byte(id+"\n"), 0o444)
	}
	if err != nil {
		return fmt.Errorf("write machine id: %w", err)
	}
	return nil
}

// keepJournal has journalctl, which looks under the machine's id, find what
// journald writes where it began.
func keepJournal(l layout.Layout, old, id string) error {
	if old == "" {
		return nil
	}
	for _, dir := range []string{"/run/log/journal", "/var/log/journal"} {
		if _, err := os.Stat(filepath.Join(l.At(dir), old)); err != nil {
			continue
		}
		if err := os.Symlink(old, filepath.Join(l.At(dir), id)); err != nil {
			return fmt.Errorf("keep journal: %w", err)
		}
	}
	return nil
}
