package accel

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Host names what a guest under KVM sees of this host: its kernel and processor.
// A guest frozen on another may not be able to go on here.
func Host() (string, error) {
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return "", err
	}
	sum := sha256.New()
	for line := range strings.Lines(string(raw)) {
		name, _, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "vendor_id", "cpu family", "model", "stepping", "microcode", "flags":
			_, _ = sum.Write([]byte(line))
		case "": // the first processor speaks for all
			return unix.ByteSliceToString(uts.Release[:]) + " " + hex.EncodeToString(sum.Sum(nil)[:8]), nil
		}
	}
	return unix.ByteSliceToString(uts.Release[:]) + " " + hex.EncodeToString(sum.Sum(nil)[:8]), nil
}
