package main

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/fault"
)

// knownFor is how long the file of a sandbox's key is kept. ssh reads it only
// when it connects.
const knownFor = 24 * time.Hour

// knownHosts writes the sandbox's key to a file for ssh to read, and gives its
// path. The file stays: whoever is killed leaves one per sandbox, not one per
// call, and the next call removes those of a day ago.
func knownHosts(s api.Sandbox) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fault.New(fault.Precondition, "there is no place for the sandbox's key: %w", err).WithHint("set HOME")
	}
	dir := filepath.Join(cache, "agentlab", "ssh")
	name := s.ID + ".known_hosts"
	if filepath.Base(name) != name {
		return "", fault.New(fault.Internal, "the daemon gives the sandbox the id %q", s.ID)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fault.New(fault.Denied, "make a place for the sandbox's key: %w", err)
	}
	if err := replaceFile(filepath.Join(dir, name), []byte(s.ID+" "+s.HostKey+"\n"), 0o600); err != nil {
		return "", err
	}
	forget(dir, time.Now().Add(-knownFor))
	return filepath.Join(dir, name), nil
}

// forget removes what was written before then. What cannot be removed does no
// harm.
func forget(dir string, before time.Time) {
	list, _ := os.ReadDir(dir)
	for _, e := range list {
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() && st.ModTime().Before(before) {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// quoted is a path as a value in ssh's configuration, where "%" begins a token
// and blanks separate paths.
func quoted(path string) string {
	return `"` + strings.NewReplacer("%", "%%", `\`, `\\`, `"`, `\"`).Replace(path) + `"`
}
