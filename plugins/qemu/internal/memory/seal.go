package memory

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	chunk    = 1 << 20
	pageSize = 4096
	// Nobody can write to such a file any more, whoever opens it; what maps it
	// privately gets pages of its own where it writes.
	seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
)

// Seal copies a file of guest memory into memory of the host that can never be
// written again. Pages of zeros take none. The file is open for reading only.
func Seal(ctx context.Context, path string) (*os.File, error) {
	from, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.Precondition, "open guest memory: %w", err)
	}
	defer from.Close()
	st, err := from.Stat()
	if err != nil {
		return nil, fault.New(fault.Internal, "look at guest memory: %w", err)
	}
	to, err := sealable(st.Size())
	if err != nil {
		return nil, err
	}
	defer to.Close()
	err = copyPages(ctx, to, from, st.Size())
	if err == nil {
		_, err = unix.FcntlInt(to.Fd(), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		class := fault.Internal
		if ctx.Err() != nil {
			class = fault.Timeout
		} else if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM) {
			class = fault.Exhausted
		}
		return nil, fault.New(class, "copy guest memory: %w", err)
	}
	return reopen(to)
}

// Sealable gives an error where the kernel cannot seal memory.
func Sealable() error {
	f, err := sealable(pageSize)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return fault.New(fault.Unsupported, "seal memory: %w", err)
	}
	return nil
}

func sealable(size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("agentlab-ram", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fault.New(fault.Unsupported, "make memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "agentlab-ram")
	if err := f.Truncate(size); err != nil {
		_ = f.Close()
		return nil, fault.New(fault.Exhausted, "make memory file of %d bytes: %w", size, err)
	}
	return f, nil
}

// copyPages leaves out holes and pages of zeros.
func copyPages(ctx context.Context, to, from *os.File, size int64) error {
	buf := make([]byte, chunk)
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(from.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(from.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for at = data - data%pageSize; at < hole; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := from.ReadAt(buf[:min(chunk, size-at)], at)
			if err != nil && (!errors.Is(err, io.EOF) || n == 0) {
				return err
			}
			if err := writeRuns(to, buf[:n], at); err != nil {
				return err
			}
			at += int64(n)
		}
	}
	return nil
}

var zeroPage = make([]byte, pageSize)

// writeRuns writes each stretch of pages that hold something.
func writeRuns(to *os.File, b []byte, at int64) error {
	empty := func(i int) bool {
		page := b[i:min(len(b), i+pageSize)]
		return bytes.Equal(page, zeroPage[:len(page)])
	}
	for i := 0; i < len(b); {
		if empty(i) {
			i += pageSize
			continue
		}
		end := i
		for end < len(b) && !empty(end) {
			end = min(len(b), end+pageSize)
		}
		if _, err := to.WriteAt(b[i:end], at+int64(i)); err != nil {
			return err
		}
		i = end
	}
	return nil
}

// reopen gives a descriptor of its own on the same file.
func reopen(f *os.File) (*os.File, error) {
	out, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fault.New(fault.Internal, "open sealed memory: %w", err)
	}
	return out, nil
}
