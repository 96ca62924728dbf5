package assume

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
)

// randomDevice is the kernel's pool.
const randomDevice = "/dev/urandom"

// addEntropy mixes b in and makes the kernel's generator start from it: until
// then every copy of a template would draw the same numbers.
func addEntropy(l layout.Layout, b []byte) error {
	f, err := os.OpenFile(l.At(randomDevice), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open random pool: %w", err)
	}
	defer f.Close()
	// struct rand_pool_info: bits, bytes, the bytes themselves.
	info := make([]byte, 8, 8+len(b))
	binary.NativeEndian.PutUint32(info, uint32(8*len(b)))
	binary.NativeEndian.PutUint32(info[4:], uint32(len(b)))
	info = append(info, b...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return fmt.Errorf("add to random pool: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.RNDRESEEDCRNG, 0); errno != 0 {
		return fmt.Errorf("reseed random numbers: %w", errno)
	}
	return nil
}
