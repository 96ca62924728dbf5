package memory

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
)

// builderName is beside the drafts: it stays when one is removed whose program could
// not be ended.
const builderName = ".builder.json"

// Builder is the program that makes a template, as it was written down before that
// ran. What it is found by later must not depend on a configuration that may be
// another by then, nor on anything that its guest can change.
type Builder struct {
	UID        uint32 `json:"uid"`
	Mark       string `json:"mark"`
	BootID     string `json:"boot_id"`
	PID        int    `json:"pid,omitempty"` // 0 until it is known; the guest has not run before
	StartTicks uint64 `json:"start_ticks,omitempty"`
}

// NoteBuilder writes it down. Caller holds the build lock.
func (s *Store) NoteBuilder(b Builder) error {
	raw, err := json.Marshal(b)
	if err != nil {
		return fault.New(fault.Internal, "encode note of builder: %w", err)
	}
	return record.WriteFile(filepath.Join(s.root, builderName), append(raw, '\n'), 0o600, os.Getuid())
}

// Builder gives what was noted last, nil when it is known to have ended.
func (s *Store) Builder() (*Builder, error) {
	path := filepath.Join(s.root, builderName)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, record.Classify("read note of builder", err)
	}
	var b Builder
	if err := json.Unmarshal(raw, &b); err != nil {
		return nil, fault.New(fault.Precondition, "read note of builder: %w", err).
			WithHint("end what makes a memory template, if it runs, and remove %s", path)
	}
	return &b, nil
}

// ForgetBuilder notes that it has ended. Caller holds the build lock.
func (s *Store) ForgetBuilder() error {
	err := os.Remove(filepath.Join(s.root, builderName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return record.Classify("remove note of builder", err)
}
