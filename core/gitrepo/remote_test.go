package gitrepo

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/sdk/fault"
)

// TestCloneNamesRemoteAndReason: what a person reads in the job's reason.
func TestCloneNamesRemoteAndReason(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	missing := filepath.Join(t.TempDir(), "nothing.git")
	empty := t.TempDir()
	if out, err := exec.Command("git", "init", "-q", "--bare", empty).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	for _, tc := range []struct {
		url   string
		class fault.Class
		says  []string
		hint  string
	}{
		{"http://127.0.0.1:1/x.git", fault.Unavailable, []string{"fetch from http://127.0.0.1:1/x.git: unable to access", "connect"}, "mode nat"},
		{"http://me:s3cret@127.0.0.1:1/x.git", fault.Unavailable, []string{"fetch from http://me:xxxxx@127.0.0.1:1/x.git: "}, "mode nat"},
		{"file://" + missing, fault.Unavailable, []string{"fetch from file://" + missing, "does not appear to be a git repository"}, "check the URL"},
		{"file://" + empty, fault.NotFound, []string{empty, "has no default branch"}, "first commit"},
	} {
		_, err := Clone(t.Context(), t.TempDir(), CloneOptions{URL: tc.url})
		if !errors.Is(err, tc.class) || !strings.Contains(fault.HintOf(err), tc.hint) {
			t.Errorf("%s: %v (%s, hint %q)", tc.url, err, fault.ClassOf(err), fault.HintOf(err))
		}
		for _, want := range tc.says {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", tc.url, err, want)
			}
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the password is told: %v", err)
		}
	}
}

func TestReason(t *testing.T) {
	const advice = "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\nand the repository exists.\n"
	for said, want := range map[string][2]string{
		"Warning: Permanently added 'h'.\ngit@h: Permission denied (publickey).\r\n" + advice: {"git@h: Permission denied (publickey).", "git.ssh_private_key"},
		"Host key verification failed.\r\n" + advice:                                          {"Host key verification failed.", "git.known_hosts"},
		"ssh: connect to host h port 22: Connection timed out\n" + advice:                     {"ssh: connect to host h port 22: Connection timed out", "mode nat"},
		"fatal: could not read Username for 'https://h': terminal prompts disabled\n":         {"could not read Username for 'https://h': terminal prompts disabled", "git.token"},
		"remote: Repository not found.\nfatal: repository 'https://h/x/' not found\n":         {"repository 'https://h/x/' not found", "check the URL"},
	} {
		err := remoteError("fetch from", "ssh://git@h/x", &fault.Error{Class: fault.Internal, Message: "git fetch ended with an error", Stderr: said})
		if got := err.Error(); got != "fetch from ssh://git@h/x: "+want[0] || !strings.Contains(fault.HintOf(err), want[1]) {
			t.Errorf("got %q, hint %q; want %q", got, fault.HintOf(err), want)
		}
	}
}
