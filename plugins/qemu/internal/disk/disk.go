package disk

import (
	"context"
	"os"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
)

const createTimeout = time.Minute

// Overlay asks for one disk.
type Overlay struct {
	Path  string
	Base  string // qcow2
	Bytes uint64
	UID   uint32 // owner, and group of the same number
}

// Create makes the overlay, in place of an older one. qemu-img runs as the
// disk's own user, so no image can make it reach what that user may not.
// fault.Exhausted when the file system is full.
func Create(ctx context.Context, o Overlay) error {
	if err := fresh(o.Path, o.UID); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	// -u: the base was checked and its size is given, so it need not be opened.
	_, err := tool(
		ctx, o.UID, "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", o.Base, "-o", "compat=1.1",
		o.Path, strconv.FormatUint(o.Bytes, 10),
	)
	if err != nil {
		return err
	}
	return sync(o.Path)
}

// fresh makes an empty file in the place of an older one, and gives it away: the
// user cannot create files in the folder.
func fresh(path string, uid uint32) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return record.Classify("remove old disk", err)
	}
	return record.WriteFile(path, nil, 0o600, int(uid))
}

func sync(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return record.Classify("sync disk", err)
	}
	defer f.Close()
	return record.Classify("sync disk", f.Sync())
}
