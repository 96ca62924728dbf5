package disk

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	snapshotTimeout = 2 * time.Minute
	copyTimeout     = 30 * time.Minute
)

// Image is a qcow2 disk that no QEMU has open. qemu-img works on it as its user.
type Image struct {
	Path string
	UID  uint32
}

// spec names the image to qemu-img without what its header says of a file below
// it, which nothing here needs.
func (i Image) spec() string {
	raw, err := json.Marshal(map[string]any{
		"driver": "qcow2", "backing": nil, "file": map[string]any{"driver": "file", "filename": i.Path},
	})
	if err != nil {
		panic(err) // strings only
	}
	return "json:" + string(raw)
}

// CreateBlank makes the disk, in place of an older one.
func (i Image) CreateBlank(ctx context.Context, size uint64) error {
	if err := fresh(i.Path, i.UID); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	_, err := tool(ctx, i.UID, "create", "-q", "-f", "qcow2", "-o", "compat=1.1", i.Path, strconv.FormatUint(size, 10))
	if err != nil {
		return err
	}
	return sync(i.Path)
}

// Copy makes the disk with the content of another, or of a snapshot in it, in
// place of an older one, and of this size, which is no less. The user must be
// able to read the other.
func (i Image) Copy(ctx context.Context, from Image, snapshot string, size uint64) error {
	if err := fresh(i.Path, i.UID); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, copyTimeout)
	defer cancel()
	args := []string{"convert", "-q", "-O", "qcow2", "-o", "compat=1.1"}
	if snapshot != "" {
		args = append(args, "-l", "snapshot.name="+snapshot)
	}
	if _, err := tool(ctx, i.UID, append(args, from.spec(), i.Path)...); err != nil {
		return err
	}
	if _, err := tool(ctx, i.UID, "resize", "-q", "-f", "qcow2", i.Path, strconv.FormatUint(size, 10)); err != nil {
		return err
	}
	return sync(i.Path)
}

// Keep makes a snapshot, in place of one of that name.
func (i Image) Keep(ctx context.Context, name string) error {
	if err := i.Drop(ctx, name); err != nil {
		return err
	}
	return i.snapshot(ctx, "-c", name)
}

// Apply takes the disk back to the snapshot.
func (i Image) Apply(ctx context.Context, name string) error { return i.snapshot(ctx, "-a", name) }

// Drop removes the snapshots of that name. None is no error.
func (i Image) Drop(ctx context.Context, name string) error {
	names, err := i.names(ctx)
	for err == nil && slices.Contains(names, name) {
		if err = i.snapshot(ctx, "-d", name); err == nil {
			names, err = i.names(ctx)
		}
	}
	return err
}

func (i Image) snapshot(ctx context.Context, action, name string) error {
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	if _, err := tool(ctx, i.UID, "snapshot", "-q", action, name, i.spec()); err != nil {
		return err
	}
	return sync(i.Path)
}

func (i Image) names(ctx context.Context) (out []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	raw, err := tool(ctx, i.UID, "info", "--output=json", i.spec())
	if err != nil {
		return nil, err
	}
	var info struct {
		Snapshots []struct {
			Name string `json:"name"`
		} `json:"snapshots"`
	}
	if err := json.Unmarshal(raw, &info); err != nil {
		return nil, fault.New(fault.Internal, "read what qemu-img says of a disk: %w", err)
	}
	for _, s := range info.Snapshots {
		out = append(out, s.Name)
	}
	return out, nil
}

// Give makes the file the user's, and nobody else's: an earlier owner may have
// opened it to others.
func Give(path string, uid uint32) error {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return record.Classify("hand over disk", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return record.Classify("hand over disk", err)
	}
	if !st.Mode().IsRegular() {
		return fault.New(fault.Precondition, "%s is no plain file", path)
	}
	// In this order: the owner could undo the mode.
	if err := f.Chown(int(uid), int(uid)); err != nil {
		return record.Classify("hand over disk", err)
	}
	return record.Classify("hand over disk", f.Chmod(0o600))
}
