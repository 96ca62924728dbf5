package main

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/fault"
)

// youngest is the age from which a folder that nobody has locked is left over: its
// maker has just made it, or was killed.
const youngest = time.Minute

// sshFiles is a folder for one call of ssh: the sandbox's key for ssh to read, and
// what ssh itself says. close removes it; what a kill leaves, the next call does.
type sshFiles struct {
	dir  string
	lock *os.File
}

func newSSHFiles(s api.Sandbox) (*sshFiles, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fault.New(fault.Precondition, "there is no place for the sandbox's key: %w", err).WithHint("set HOME")
	}
	base := filepath.Join(cache, "agentlab", "ssh")
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, fault.New(fault.Denied, "make a place for the sandbox's key: %w", err)
	}
	forget(base, time.Now().Add(-youngest))
	f := &sshFiles{}
	if f.dir, err = os.MkdirTemp(base, "run-"); err == nil {
		f.lock, err = lockDir(f.dir)
	}
	if err == nil {
		err = os.WriteFile(f.known(), []byte(s.ID+" "+s.HostKey+"\n"), 0o600)
	}
	if err != nil {
		f.close()
		return nil, fault.New(fault.Denied, "write the sandbox's key: %w", err)
	}
	return f, nil
}

func (f *sshFiles) known() string { return filepath.Join(f.dir, "known_hosts") }
func (f *sshFiles) said() string  { return filepath.Join(f.dir, "said") }

func (f *sshFiles) close() {
	_ = os.RemoveAll(f.dir)
	if f.lock != nil {
		_ = f.lock.Close()
	}
}

// lockDir holds a folder for as long as the file is open; a kill lets it go.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// forget removes what is older and in nobody's use, also files of earlier versions.
// What cannot be removed does no harm.
func forget(base string, before time.Time) {
	list, _ := os.ReadDir(base)
	for _, e := range list {
		st, err := e.Info()
		if err != nil || !st.ModTime().Before(before) {
			continue
		}
		path := filepath.Join(base, e.Name())
		if !st.IsDir() {
			_ = os.Remove(path)
			continue
		}
		if lock, err := lockDir(path); err == nil {
			_ = os.RemoveAll(path)
			_ = lock.Close()
		}
	}
}

// quoted is a path as a value in ssh's configuration, where "%" begins a token
// and blanks separate paths.
func quoted(path string) string {
	return `"` + strings.NewReplacer("%", "%%", `\`, `\\`, `"`, `\"`).Replace(path) + `"`
}
