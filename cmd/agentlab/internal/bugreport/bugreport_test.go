package bugreport

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

func TestScrub(t *testing.T) {
	const planted = "s3cr3tPLANTED0123456789"
	known := secret.NewRedactor(secret.New("known-to-us"))
	pem := "-----BEGIN OPENSSH PRIVATE KEY-----\n" + planted + "\n-----END OPENSSH PRIVATE KEY-----"
	for _, text := range []string{
		"it is known-to-us", "https://me:" + planted + "@git.example/x", "ssh://" + planted + "@h/x", "https://" + planted + "@h",
		"clone https://git.example/x.git?access=" + planted, "see https://h/x#" + planted, "Authorization: Bearer " + planted,
		"TOKEN=" + planted, `"api_key": "` + planted + `"`, `{\"password\":\"` + planted + `\"}`, "MY_SECRET_VALUE: " + planted,
		"export GITHUB_TOKEN='" + planted + "'", "passwd=" + planted, "db_password => " + planted, "private-key=" + planted,
		"ghp_" + planted, "github_pat_" + planted, "glpat-" + planted, "sk-ant-" + planted, "tskey-auth-" + planted, "xoxb-" + planted,
		"AGE-SECRET-KEY-1" + strings.ToUpper(planted), "eyJhbGciOiJI." + planted + ".x" + planted,
		pem, "a\n" + pem + "\nb", planted + "\nxx\n-----END RSA PRIVATE KEY-----\nrest", "x\n-----BEGIN PRIVATE KEY-----\n" + planted,
		strings.ReplaceAll(pem, "\n", `\n`),
	} {
		got := string(scrub(known, []byte(text)))
		if strings.Contains(got, "known-to-us") || strings.Contains(strings.ToLower(got), strings.ToLower(planted)) || !strings.Contains(got, secret.Mask) {
			t.Errorf("%q became %q", text, got)
		}
	}
	for _, text := range []string{
		"https://git.example/x.git at 4f2a", "step create-vm, attempt 3", `"sha256": "00ff00ff00ff00ff00ff"`, "sbx_5425odiklsu3m7hp",
		"/etc/agentlab/keys/agentlab_id_ed25519.pub", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBvCc5jCAG13VhOsfXjLKkT7IMz4MbCknv1BSQDstvvz",
		"[INFO]  agentlabd.plugin.secrets.sim: plugin is ready", "op_xbt73fay6tzbywyq", "2026-01-02T03:04:05Z", "git@github.com:a/b.git",
	} {
		if got := string(scrub(known, []byte(text))); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestTailKeepsWholeLines(t *testing.T) {
	for _, tc := range []struct {
		text string
		n    int
		want string
	}{{"a\nb\nc\n", 100, "a\nb\nc\n"}, {"aaa\nbbb\nccc\n", 9, "bbb\nccc\n"}, {"aaa\nbbb\nccc\n", 8, "ccc\n"}, {"aaaaaa", 3, ""}} {
		if got := string(tail([]byte(tc.text), tc.n)); got != tc.want {
			t.Errorf("%q, %d bytes: %q", tc.text, tc.n, got)
		}
	}
}

func read(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(b)
	}
}

func TestBundle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.tar.gz")
	b := New(secret.New("planted-1"))
	b.JSON("status.json", "the daemon", map[string]string{"task": "planted-1"})
	b.JSON("large.json", "too large", strings.Repeat("x", MaxFile))
	b.Text("job.log", "a log", []byte(strings.Repeat("0123456789abcde\n", MaxFile/16)+"end\n"))
	b.Missing("console.txt", errors.New("no token=planted-1 here"))
	for range maxFiles {
		b.Text("more", "", []byte(strings.Repeat("y", MaxFile-1)+"\n"))
	}
	if err := b.Write(path, "top"); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 || st.Size() > MaxTotal {
		t.Errorf("file %v, %v", st, err)
	}
	got := read(t, path)
	total := 0
	for name, text := range got {
		total += len(text)
		if strings.Contains(text, "planted-1") {
			t.Errorf("%s holds the secret", name)
		}
	}
	readme := got["top/README.md"]
	if total > MaxTotal+MaxFile || !strings.HasSuffix(got["top/job.log"], "\nend\n") || !strings.Contains(got["top/status.json"], secret.Mask) {
		t.Errorf("%d bytes; log ends with %.20q", total, got["top/job.log"][max(0, len(got["top/job.log"])-20):])
	}
	for _, want := range []string{"`status.json`: the daemon", "`job.log`: a log (the last ", "- large.json: it has ", "- console.txt: no token=", "the bundle is full"} {
		if !strings.Contains(readme, want) {
			t.Errorf("README does not say %q:\n%s", want, readme)
		}
	}
	if err := b.Write(path, "top"); !errors.Is(err, fault.Exists) {
		t.Errorf("written twice: %v", err)
	}
	if err := b.Write(filepath.Join(path, "no", "x"), "top"); err == nil {
		t.Error("written where there is no directory")
	}
}
