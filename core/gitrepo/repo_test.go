package gitrepo_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// repo is a repository made for a test.
type repo struct {
	t   *testing.T
	dir string
}

func newRepo(t *testing.T) repo {
	t.Helper()
	r := repo{t, filepath.Join(t.TempDir(), "project")}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.git("init", "--quiet", "--initial-branch=trunk")
	r.write("README", "hello\n")
	r.write("src/main.c", "int main;\n")
	r.commit("first")
	return r
}

func (r repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=t", "GIT_AUTHOR_EMAIL=t@example.org", "GIT_COMMITTER_NAME=t", "GIT_COMMITTER_EMAIL=t@example.org")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r repo) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		r.t.Fatal(err)
	}
}

func (r repo) commit(message string) string {
	r.t.Helper()
	r.git("add", "--all")
	r.git("commit", "--quiet", "--message", message)
	return r.git("rev-parse", "HEAD")
}

// state lists every file of the repository with its mode and time, so that two
// states differ when anything was written.
func (r repo) state() string {
	r.t.Helper()
	var b strings.Builder
	err := filepath.Walk(r.dir, func(path string, st os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		line := path + " " + st.Mode().String()
		if !strings.Contains(path, "/.git/objects/") { // git renews the time of an object that it finds again
			line += " " + st.ModTime().String()
		}
		b.WriteString(line + "\n")
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return b.String()
}

// arm makes every program that a repository can name write to the returned
// file when it is run.
func (r repo) arm() (witness string) {
	r.t.Helper()
	witness = filepath.Join(r.t.TempDir(), "witness")
	script := filepath.Join(r.t.TempDir(), "trap.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$0 $*\" >>"+witness+"\ncat\n"), 0o755); err != nil {
		r.t.Fatal(err)
	}
	for _, hook := range []string{"pre-commit", "post-checkout", "post-commit", "reference-transaction", "post-index-change", "pre-auto-gc", "post-update", "pre-receive"} {
		if err := os.MkdirAll(filepath.Join(r.dir, ".git/hooks"), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.Symlink(script, filepath.Join(r.dir, ".git/hooks", hook)); err != nil {
			r.t.Fatal(err)
		}
	}
	for key, value := range map[string]string{
		"core.fsmonitor": script, "core.sshCommand": script, "core.pager": script, "core.alternateRefsCommand": script,
		"core.hooksPath": filepath.Join(r.dir, ".git/hooks"), "diff.external": script, "uploadpack.packObjectsHook": script,
		"filter.trap.clean": script, "filter.trap.smudge": script, "filter.trap.required": "true",
		"filter.Odd.Name.clean": script, "core.gitProxy": script, "gpg.program": script, "commit.gpgSign": "true",
	} {
		cmd := exec.Command("git", "config", "--file", filepath.Join(r.dir, ".git/config"), key, value)
		if out, err := cmd.CombinedOutput(); err != nil {
			r.t.Fatalf("set %s: %v %s", key, err, out)
		}
	}
	return witness
}

func unharmed(t *testing.T, witness string) {
	t.Helper()
	if b, err := os.ReadFile(witness); err == nil {
		t.Errorf("a program of the repository was run:\n%s", b)
	}
}

// reachable lets other users enter the test's directories.
func (r repo) reachable() {
	r.t.Helper()
	for _, dir := range []string{filepath.Dir(r.dir), filepath.Dir(filepath.Dir(r.dir))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
}
