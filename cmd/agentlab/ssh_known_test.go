package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
	path, err := knownHosts(api.Sandbox{ID: "sbx_1", HostKey: "ssh-ed25519 AAAA"})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "sbx_1 ssh-ed25519 AAAA\n" {
		t.Errorf("file holds %q, %v", b, err)
	}
	out, err := exec.Command(ssh, "-F", "none", "-G", "-o", "UserKnownHostsFile="+quoted(path), "host").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "userknownhostsfile "+path+"\n") {
		t.Errorf("ssh reads %v\n%s", err, out)
	}
	if _, err := knownHosts(api.Sandbox{ID: "../x"}); err == nil {
		t.Error("an id left the directory")
	}
}
