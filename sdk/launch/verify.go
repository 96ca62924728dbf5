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
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Verify tells whether Start would take the binary: it is there, nobody but root
// and us may change it or put another in its place, it is for this machine, and
// it has the pinned content. It starts nothing.
func Verify(path, pin string) error {
	f, err := openVerified(path, pin)
	if err != nil {
		return err
	}
	return f.Close()
}

// Sum is Verify, and gives the SHA-256 of the binary in hex.
func Sum(path, pin string) (string, error) {
	f, err := openVerified(path, pin)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	return sum(f)
}

// openVerified opens the binary and checks it through the open file, so that
// what is checked is what is executed. An empty pin means any content.
func openVerified(path, pin string) (*os.File, error) {
	real, err := resolve(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "plugin binary %s does not exist", path).
			WithHint("install the plugin, or set path in its block")
	}
	if err != nil {
		return nil, err
	}
	// A pipe would block, and a link that is new has not been looked at.
	f, err := os.OpenFile(real, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fault.New(fault.Denied, "plugin binary: %w", err)
	}
	if err := errors.Join(checkFile(f, real), checkSum(f, pin)); err != nil {
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
		err := fault.New(fault.Denied, "plugin binary %s is not an executable file", path)
		if !strings.HasPrefix(filepath.Base(path), plugin.BinaryPrefix) {
			return err.WithHint("name the plugin's binary with path in its block, which is mostly called %sNAME; if it is this one: chmod 755 %s", plugin.BinaryPrefix, path)
		}
		return err.WithHint("chmod 755 %s", path)
	}
	if err := checkWriters(info, path); err != nil {
		return err
	}
	return checkProgram(f, path)
}

func checkSum(f *os.File, pin string) error {
	if pin == "" {
		return nil
	}
	got, err := sum(f)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(got), []byte(strings.ToLower(pin))) != 1 {
		return fault.New(fault.Denied, "plugin binary %s has sha256 %s, but %s is pinned", f.Name(), got, pin).
			WithHint("if this binary is the one you want, pin it: agentlab plugin lock")
	}
	return nil
}

// sum is the SHA-256 of the file in hex. A start asks for it several times, for
// several plugins at once, and a plugin has tens of megabytes: it is made once for
// a file that stays as it is.
func sum(f *os.File) (string, error) {
	before, settled := versionOf(f)
	if !settled {
		return digest(f)
	}
	once, _ := sums.LoadOrStore(before, sync.OnceValues(func() (string, error) { return digest(f) }))
	got, err := once.(func() (string, error))()
	if after, _ := versionOf(f); err != nil || after != before {
		sums.Delete(before)
	}
	return got, err
}

// sums are what digest gives, by version.
var sums sync.Map

func digest(f *os.File) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return "", fault.New(fault.Denied, "read plugin binary: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// version is a file with one content: who writes to a file changes the time of its
// change, soon, even by memory.
type version struct {
	device, inode, size uint64
	changed             unix.Timespec
}

// settleTime is far more than one step of the clock that file systems use: what
// was changed longer ago cannot be changed again at the same time.
const settleTime = 2 * time.Second

// versionOf gives the file's version, and whether it tells it from all others.
func versionOf(f *os.File) (v version, settled bool) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return v, false
	}
	v = version{uint64(st.Dev), st.Ino, uint64(st.Size), st.Ctim}
	return v, time.Since(time.Unix(st.Ctim.Unix())) > settleTime
}
