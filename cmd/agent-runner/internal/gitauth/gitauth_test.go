package gitauth_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/gitauth"
	"github.com/agentlab/agentlab/sdk/secret"
)

func place(t *testing.T, a gitauth.Auth) string {
	t.Helper()
	dir := t.TempDir()
	for name, v := range a.Files() {
		if !v.Empty() {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(v.Reveal()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func TestAnswer(t *testing.T) {
	bound := place(t, gitauth.Auth{Token: secret.New("tok\n"), Server: "https://Git.Example:8443/a/b.git"})
	free := place(t, gitauth.Auth{Token: secret.New("tok"), Username: "me"})
	plain := place(t, gitauth.Auth{Token: secret.New("tok"), Server: "http://10.0.0.1:3000/x"})
	for _, c := range []struct{ dir, prompt, want string }{
		{bound, "Username for 'https://git.example:8443': ", "x-access-token"},
		{bound, "Password for 'https://x-access-token@git.example:8443': ", "tok"},
		{bound, "Password for 'https://evil.example': ", ""},
		{bound, "Password for 'https://git.example:8443@evil.example': ", ""},
		{bound, "Password for 'http://git.example:8443': ", ""},
		{bound, "Enter passphrase for key '/x': ", ""},
		{free, "Username for 'https://any.example': ", "me"},
		{free, "Password for 'http://any.example': ", ""},
		{plain, "Password for 'http://10.0.0.1:3000': ", "tok"},
	} {
		got, err := gitauth.Answer(c.dir, c.prompt)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v, want %q", c.prompt, got, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "tok\n") {
			t.Errorf("error shows the token: %v", err)
		}
	}
}

func TestEnv(t *testing.T) {
	strict := gitauth.Auth{Key: secret.New("KEY"), KnownHosts: "h ssh-ed25519 A"}.Env("/s", "/ask")
	if ssh := strict["GIT_SSH_COMMAND"]; !strings.Contains(ssh, "StrictHostKeyChecking=yes") || !strings.Contains(ssh, "-i '/s/git-key'") {
		t.Errorf("ssh command %q", ssh)
	}
	loose := gitauth.Auth{Key: secret.New("KEY")}.Env("/s", "/ask")
	if ssh := loose["GIT_SSH_COMMAND"]; !strings.Contains(ssh, "accept-new") {
		t.Errorf("ssh command %q", ssh)
	}
	if _, ok := loose["GIT_ASKPASS"]; ok {
		t.Error("askpass without a token")
	}
}
