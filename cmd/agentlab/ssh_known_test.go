package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
)

// ssh itself must read the file that was written, whatever the home is called.
func TestKnownHostsIsOneFileForSSH(t *testing.T) {
	const ssh = "/usr/bin/ssh" // the one in PATH is a test's
	if _, err := os.Stat(ssh); err != nil {
		t.Skip("needs ssh")
	}
	home := filepath.Join(t.TempDir(), `o'dd %h "q" dir`)
	t.Setenv("XDG_CACHE_HOME", home)
	files, err := newSSHFiles(api.Sandbox{ID: "sbx_1", HostKey: "ssh-ed25519 AAAA"})
	if err != nil {
		t.Fatal(err)
	}
	defer files.close()
	if b, err := os.ReadFile(files.known()); err != nil || string(b) != "sbx_1 ssh-ed25519 AAAA\n" {
		t.Errorf("file holds %q, %v", b, err)
	}
	out, err := exec.Command(ssh, "-F", "none", "-G", "-o", "UserKnownHostsFile="+quoted(files.known()), "host").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "userknownhostsfile "+files.known()+"\n") {
		t.Errorf("ssh reads %v\n%s", err, out)
	}
}

// What killed calls left goes, what is in use or new stays, and a call that ends
// leaves nothing.
func TestSSHFilesOfOthers(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", home)
	base := filepath.Join(home, "agentlab", "ssh")
	open := func() *sshFiles {
		t.Helper()
		files, err := newSSHFiles(api.Sandbox{ID: "sbx_1", HostKey: "ssh-ed25519 AAAA"})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	killed, running := open(), open()
	if err := killed.lock.Close(); err != nil {
		t.Fatal(err)
	}
	earlier := filepath.Join(base, "sbx_0.known_hosts")
	if err := os.WriteFile(earlier, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-2 * youngest)
	for _, path := range []string{killed.dir, running.dir, earlier} {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	now := open()
	names := func() (out []string) {
		list, err := os.ReadDir(base)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			out = append(out, e.Name())
		}
		return out
	}
	if got := names(); len(got) != 2 {
		t.Errorf("there are %q, want the two in use", got)
	}
	now.close()
	running.close()
	if got := names(); len(got) != 0 {
		t.Errorf("left are %q", got)
	}
}
