package launch

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Verify tells whether Start would take the binary: it is there, nobody but root
// and us may change it, and it has the pinned content. It starts nothing.
func Verify(path, pin string) error {
	f, err := openVerified(path, pin)
	if err != nil {
		return err
	}
	return f.Close()
}

// openVerified opens the binary and checks it through the open file, so that
// what is checked is what is executed. An empty pin means any content.
func openVerified(path, pin string) (*os.File, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "plugin binary %s does not exist", path).
			WithHint("install the plugin, or set path in its block")
	}
	if err != nil {
		return nil, fault.New(fault.Denied, "plugin binary %s: %w", path, err)
	}
	if real, err = filepath.Abs(real); err != nil {
		return nil, fault.New(fault.Internal, "plugin binary %s: %w", path, err)
	}
	f, err := os.Open(real)
	if err != nil {
		return nil, fault.New(fault.Denied, "plugin binary: %w", err)
	}
	if err := checkFile(f, real); err != nil {
		_ = f.Close()
		return nil, err
	}
	if err := checkSum(f, pin); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func checkFile(f *os.File, path string) error {
	info, err := f.Stat()
	if err != nil {
		return fault.New(fault.Denied, "plugin binary %s: %w", path, err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
		return fault.New(fault.Denied, "plugin binary %s is not an executable file", path)
	}
	if err := checkWriters(info, path, false); err != nil {
		return err
	}
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Lstat(dir)
		if err != nil {
			return fault.New(fault.Denied, "folder of plugin binary: %w", err)
		}
		if err := checkWriters(info, dir, true); err != nil {
			return err
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// checkWriters refuses what somebody other than root and us may change. In a
// folder with the sticky bit others cannot replace our entries.
func checkWriters(info fs.FileInfo, path string, folder bool) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fault.New(fault.Denied, "%s: its owner cannot be read", path)
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return fault.New(fault.Denied, "%s belongs to uid %d, who could change a plugin", path, st.Uid).
			WithHint("chown root %s", path)
	}
	if info.Mode().Perm()&0o022 != 0 && !(folder && info.Mode()&fs.ModeSticky != 0) {
		return fault.New(fault.Denied, "%s may be written by others, who could change a plugin", path).
			WithHint("chmod go-w %s", path)
	}
	return nil
}

func checkSum(f *os.File, pin string) error {
	if pin == "" {
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fault.New(fault.Denied, "read plugin binary: %w", err)
	}
	got := hex.EncodeToString(h.Sum(nil))
	if subtle.ConstantTimeCompare([]byte(got), []byte(strings.ToLower(pin))) != 1 {
		return fault.New(fault.Denied, "plugin binary %s has sha256 %s, but %s is pinned", f.Name(), got, pin).
			WithHint("if this binary is the one you want, change sha256 in its block")
	}
	return nil
}

// isScript reports whether the kernel would start an interpreter for f.
func isScript(f *os.File) bool {
	var magic [2]byte
	n, _ := f.ReadAt(magic[:], 0)
	return n == 2 && string(magic[:]) == "#!"
}
