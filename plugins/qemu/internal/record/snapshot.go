package record

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

const snapshotsName = "snapshots.json"

// SnapshotState says how far a snapshot is.
type SnapshotState string

// Only what is in SnapshotReady may be gone back to. The disk may have one in
// another state, or not.
const (
	SnapshotCreating SnapshotState = "creating"
	SnapshotReady    SnapshotState = "ready"
	SnapshotDeleting SnapshotState = "deleting"
)

// Snapshot is one of a disk, and of memory.
type Snapshot struct {
	Name    string        `json:"name"`
	State   SnapshotState `json:"state"`
	Created time.Time     `json:"created"`
	Memory  *MemoryState  `json:"memory,omitempty"`
}

// MemoryState is what a program must be to go on from a kept memory.
type MemoryState struct {
	QEMU  string `json:"qemu"` // version
	Accel string `json:"accel"`
	CPU   string `json:"cpu"`
	Board int    `json:"board"` // machine.Board
}

// Snapshots are those of one disk, oldest first.
type Snapshots []Snapshot

// Find gives the snapshot of that name in whatever state, nil for none.
func (s Snapshots) Find(name string) *Snapshot {
	for i := range s {
		if s[i].Name == name {
			return &s[i]
		}
	}
	return nil
}

// Whole reports whether there is one of that name to go back to.
func (s Snapshots) Whole(name string) bool {
	found := s.Find(name)
	return found != nil && found.State == SnapshotReady
}

// With is the list with this one in the place of one of its name, as the newest.
func (s Snapshots) With(one Snapshot) Snapshots { return append(s.Without(one.Name), one) }

// Without is the list without the one of that name.
func (s Snapshots) Without(name string) Snapshots {
	return slices.DeleteFunc(slices.Clone(s), func(o Snapshot) bool { return o.Name == name })
}

// Snapshots reads those of a VM's disk.
func (s *Store) Snapshots(vmid uint32) (Snapshots, error) {
	raw, err := os.ReadFile(s.Path(vmid, snapshotsName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, Classify("read snapshots", err)
	}
	var out Snapshots
	if err := json.Unmarshal(raw, &out); err != nil {
		return nil, unreadable(vmid, "%s: %v", snapshotsName, err)
	}
	return out, nil
}

// SaveSnapshots replaces those of a VM's disk.
func (s *Store) SaveSnapshots(vmid uint32, list Snapshots) error {
	raw, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return fault.New(fault.Internal, "encode snapshots: %w", err)
	}
	return WriteFile(s.Path(vmid, snapshotsName), append(raw, '\n'), 0o600, os.Getuid())
}
