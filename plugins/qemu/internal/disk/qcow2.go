package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	qcow2Magic       = 0x514649fb // "QFI\xfb"
	featureDirty     = 1 << 0
	featureCorrupt   = 1 << 1
	featureExtraData = 1 << 2 // guest data in another file
)

// Standalone reads a qcow2 header and gives the virtual size. It refuses a disk
// that refers to any other file: QEMU would open what the header names.
func Standalone(path string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	head := make([]byte, 104)
	if n, err := io.ReadFull(f, head); err != nil && (!errors.Is(err, io.ErrUnexpectedEOF) || n < 72) {
		return 0, fmt.Errorf("%s is too short for qcow2", path)
	}
	be := binary.BigEndian
	if be.Uint32(head) != qcow2Magic {
		return 0, fmt.Errorf("%s is not qcow2", path)
	}
	version := be.Uint32(head[4:])
	if version != 2 && version != 3 {
		return 0, fmt.Errorf("qcow2 version %d is unknown", version)
	}
	if be.Uint64(head[8:]) != 0 {
		return 0, errors.New("disk has a backing file")
	}
	if be.Uint32(head[32:]) != 0 {
		return 0, errors.New("disk is encrypted")
	}
	if version == 3 {
		features := be.Uint64(head[72:])
		if features&featureExtraData != 0 {
			return 0, errors.New("disk keeps its bytes in another file")
		}
		if features&(featureDirty|featureCorrupt) != 0 {
			return 0, errors.New("disk was not closed cleanly")
		}
	}
	return be.Uint64(head[24:]), nil
}
