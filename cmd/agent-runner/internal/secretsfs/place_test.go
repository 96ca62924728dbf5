package secretsfs_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/secretsfs"
	"github.com/agentlab/agentlab/sdk/secret"
)

const document = `{"version":1,
 "env":{"API_KEY":"api-key-value","QUOTED":"it's $HOME \"x\""},
 "git":{"token":"git-token-value","username":"bot","ssh_private_key":"-----BEGIN-----\nKEYKEYKEYKEYKEYKEYKEY\n-----END-----","known_hosts":"h ssh-ed25519 A"},
 "claude":{"settings":{"env":{"ANTHROPIC_API_KEY":"anthropic-value"}}},
 "ssh":{"keys":{"laptop":{"key":"AAAA","type":"ssh-ed25519","comment":"my laptop"},"odd":{"key":"two\nlines"}}},
 "tailscale":{"authkey":"tskey-value"}}`

func newGuest(t *testing.T) (layout.Layout, layout.Login) {
	t.Helper()
	l := layout.Layout{Root: t.TempDir()}
	if err := os.MkdirAll(l.At("/home/agent"), 0o755); err != nil {
		t.Fatal(err)
	}
	return l, layout.Login{Name: "agent", UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Home: "/home/agent", Shell: "/bin/sh"}
}

func place(t *testing.T, l layout.Layout, login layout.Login, doc string) []string {
	t.Helper()
	b, err := secretsfs.Parse(json.RawMessage(doc))
	if err != nil {
		t.Fatal(err)
	}
	env, err := secretsfs.Place(l, login, b, "https://git.example/x", "/usr/local/bin/agent-runner")
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestPlace(t *testing.T) {
	l, login := newGuest(t)
	settings := l.At("/home/agent/.claude/settings.json")
	if err := os.MkdirAll(filepath.Dir(settings), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(settings, []byte("template's"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a second boot finds the same
		env := place(t, l, login, document)
		for _, want := range []string{"API_KEY=api-key-value", "GIT_ASKPASS=" + l.At("/run/agentlab/askpass")} {
			if !slices.Contains(env, want) {
				t.Errorf("no %q in %q", want, env)
			}
		}
	}
	if st, err := os.Stat(l.Secrets()); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("secrets directory: %v %v", st, err)
	}
	entries, err := os.ReadDir(l.Secrets())
	if err != nil || len(entries) != 8 {
		t.Errorf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		if st, err := e.Info(); err != nil || st.Mode().Perm() != 0o400 {
			t.Errorf("%s has mode %v, %v", e.Name(), st.Mode(), err)
		}
	}
	if b, err := os.ReadFile(l.At("/home/agent/.ssh/authorized_keys")); err != nil || string(b) != "ssh-ed25519 AAAA my_laptop\n" {
		t.Errorf("authorized_keys %q %v", b, err)
	}
	if to, err := os.Readlink(settings); err != nil || to != l.At("/run/agentlab/secrets/claude-settings.json") {
		t.Errorf("settings link to %q, %v", to, err)
	}
	if b, _ := os.ReadFile(settings + ".template"); string(b) != "template's" {
		t.Error("the template's settings are gone")
	}
	out, err := exec.Command("/bin/sh", "-c", ". "+l.Secrets()+"/env.sh; printf %s \"$QUOTED\"").Output()
	if err != nil || string(out) != `it's $HOME "x"` {
		t.Errorf("the shell reads %q, %v", out, err)
	}
	onDisk(t, l)
}

// onDisk looks for secrets outside of /run.
func onDisk(t *testing.T, l layout.Layout) {
	t.Helper()
	err := filepath.Walk(l.Root, func(path string, st os.FileInfo, err error) error {
		if err != nil || path == l.At("/run") {
			return filepath.SkipDir
		}
		if !st.Mode().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		for _, v := range []string{"api-key-value", "git-token-value", "anthropic-value", "KEYKEY"} {
			if strings.Contains(string(b), v) {
				t.Errorf("%s holds a secret", path)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestPlaceForgets(t *testing.T) {
	l, login := newGuest(t)
	place(t, l, login, document)
	env := place(t, l, login, `{"version":1}`)
	if len(env) != 0 {
		t.Errorf("environment %q", env)
	}
	entries, err := os.ReadDir(l.Secrets())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(l.Secrets(), e.Name()))
		if strings.Contains(string(b), "value") || err != nil {
			t.Errorf("%s is left: %q %v", e.Name(), b, err)
		}
	}
	if _, err := os.Lstat(l.At("/home/agent/.claude/settings.json")); err == nil {
		t.Error("the settings link is left")
	}
}

func TestValues(t *testing.T) {
	b, err := secretsfs.Parse(json.RawMessage(document))
	if err != nil {
		t.Fatal(err)
	}
	r := secret.NewRedactor(append(b.Values(), secretsfs.FromURL("https://u:pass-in-url@h/x")...)...)
	for _, v := range []string{"api-key-value", "git-token-value", "KEYKEYKEYKEYKEYKEYKEY", "anthropic-value", "tskey-value", "pass-in-url"} {
		if !r.Contains([]byte(v)) {
			t.Errorf("%s would be shown", v)
		}
	}
	if _, err := secretsfs.Parse(json.RawMessage(`{"env":{"X":"leak-me"`)); err == nil || strings.Contains(err.Error(), "leak-me") {
		t.Errorf("error %v", err)
	}
}
