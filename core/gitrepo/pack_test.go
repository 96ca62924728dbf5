package gitrepo_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/gitrepo"
	"github.com/agentlab/agentlab/sdk/fault"
)

// roundTrip packs dir and unpacks it elsewhere.
func roundTrip(t *testing.T, dir string, opts gitrepo.PackOptions) (gitrepo.Meta, repo) {
	t.Helper()
	var archive bytes.Buffer
	checked, _, err := gitrepo.Check(t.Context(), dir, opts, script)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := gitrepo.Pack(t.Context(), dir, opts, &archive)
	if err != nil {
		t.Fatal(err)
	}
	if checked.Head = packed.Head; checked != packed { // that of uncommitted changes is made by packing
		t.Errorf("checked %+v, packed %+v", checked, packed)
	}
	out := filepath.Join(t.TempDir(), "repo")
	got, err := gitrepo.Unpack(t.Context(), &archive, out)
	if err != nil {
		t.Fatal(err)
	}
	if got != packed {
		t.Errorf("unpacked %+v, packed %+v", got, packed)
	}
	return got, repo{t, out}
}

func TestPackKinds(t *testing.T) {
	r := newRepo(t)
	first := r.git("rev-parse", "HEAD")
	r.git("tag", "v1")
	r.write("README", "more\n")
	second := r.commit("second")
	r.git("branch", "side", first)
	bare := filepath.Join(t.TempDir(), "bare.git")
	r.git("clone", "--quiet", "--bare", r.dir, bare)
	tree := filepath.Join(t.TempDir(), "tree")
	r.git("worktree", "add", "--quiet", tree, "side")
	shallow := filepath.Join(t.TempDir(), "shallow")
	r.git("clone", "--quiet", "--depth=1", "file://"+r.dir, shallow)
	odd := filepath.Join(t.TempDir(), `odd "dir: ünï`)
	r.git("clone", "--quiet", r.dir, odd)

	for name, c := range map[string]struct {
		dir, ref, head, branch string
		commits                string
	}{
		"top":          {r.dir, "", second, "trunk", "2"},
		"subdirectory": {r.dir + "/src", "", second, "trunk", "2"},
		"branch":       {r.dir, "side", first, "side", "1"},
		"tag":          {r.dir, "v1", first, "agentlab", "1"},
		"commit":       {r.dir, first[:10], first, "agentlab", "1"},
		"bare":         {bare, "", second, "trunk", "2"},
		"worktree":     {tree, "", first, "side", "1"},
		"shallow":      {shallow, "", second, "trunk", "1"},
		"odd name":     {odd, "", second, "trunk", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			meta, out := roundTrip(t, c.dir, gitrepo.PackOptions{Ref: c.ref})
			out.t = t
			if meta.Head != c.head || out.git("rev-parse", "HEAD") != c.head {
				t.Errorf("head %s, want %s", meta.Head, c.head)
			}
			if got := out.git("symbolic-ref", "--short", "HEAD"); got != c.branch {
				t.Errorf("on branch %s, want %s", got, c.branch)
			}
			if got := out.git("rev-parse", "origin/"+c.branch); got != c.head {
				t.Errorf("origin at %s, want %s", got, c.head)
			}
			if got := out.git("rev-list", "--count", "HEAD"); got != c.commits {
				t.Errorf("%s commits, want %s", got, c.commits)
			}
			if got := out.git("status", "--porcelain"); got != "" {
				t.Errorf("checkout is not clean: %s", got)
			}
			out.git("fsck", "--strict")
		})
	}
}

func TestPackRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	changed := newRepo(t)
	changed.git("init", "--quiet", empty)
	changed.write("untracked", "x")
	for name, c := range map[string]struct {
		dir   string
		opts  gitrepo.PackOptions
		class fault.Class
	}{
		"not a repository": {t.TempDir(), gitrepo.PackOptions{}, fault.NotFound},
		"no directory":     {"/nonexistent/x", gitrepo.PackOptions{}, fault.NotFound},
		"empty":            {empty, gitrepo.PackOptions{}, fault.Precondition},
		"uncommitted":      {changed.dir, gitrepo.PackOptions{}, fault.Precondition},
		"unknown ref":      {changed.dir, gitrepo.PackOptions{Ref: "nope"}, fault.NotFound},
		"option as ref":    {changed.dir, gitrepo.PackOptions{Ref: "--all"}, fault.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			_, err := gitrepo.Pack(t.Context(), c.dir, c.opts, &out)
			if !errors.Is(err, c.class) || fault.HintOf(err) == "" && name != "no directory" {
				t.Errorf("error %v (hint %q), want %s with a hint", err, fault.HintOf(err), c.class)
			}
			if out.Len() > 0 {
				t.Error("something was written")
			}
			if _, _, checked := gitrepo.Check(t.Context(), c.dir, c.opts, script); checked == nil || err == nil || checked.Error() != err.Error() {
				t.Errorf("Check says %v, Pack %v", checked, err)
			}
		})
	}
}

func TestPackForeignOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make another user's repository")
	}
	r := newRepo(t)
	r.reachable()
	if out, err := exec.Command("chown", "-R", "1234:1234", r.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("SUDO_UID", "")
	_, err := gitrepo.Pack(t.Context(), r.dir, gitrepo.PackOptions{}, &bytes.Buffer{})
	if !errors.Is(err, fault.Denied) || fault.HintOf(err) == "" {
		t.Errorf("error %v, want denied with a hint", err)
	}
	if err := os.WriteFile(os.Getenv("HOME")+"/.gitconfig", []byte("[safe]\n\tdirectory = "+r.dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := gitrepo.Pack(t.Context(), r.dir, gitrepo.PackOptions{}, &bytes.Buffer{}); err != nil {
		t.Errorf("trusted by the user's own configuration: %v", err)
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("SUDO_UID", "1234")
	if _, err := gitrepo.Pack(t.Context(), r.dir, gitrepo.PackOptions{}, &bytes.Buffer{}); err != nil {
		t.Errorf("sudo by the owner: %v", err)
	}
}

func TestPackDirty(t *testing.T) {
	r := newRepo(t)
	r.write(".gitignore", "secret\n")
	base := r.commit("ignore")
	r.write("secret", "do not take")
	r.write("README", "changed\n")
	r.write("new/file", "new\n")
	r.write("-option", "odd name\n")
	r.git("rm", "--quiet", "--cached", "src/main.c")
	if err := os.Remove(r.dir + "/src/main.c"); err != nil {
		t.Fatal(err)
	}
	witness := r.arm()
	r.write(".gitattributes", "* filter=trap\n")
	before := r.state()
	var archive bytes.Buffer
	meta, err := gitrepo.Pack(t.Context(), r.dir+"/new", gitrepo.PackOptions{Dirty: true}, &archive)
	if err != nil {
		t.Fatal(err)
	}
	if after := r.state(); after != before {
		t.Errorf("the repository changed: %s", cmp.Diff(before, after))
	}
	unharmed(t, witness)
	out := repo{t, filepath.Join(t.TempDir(), "repo")}
	if _, err := gitrepo.Unpack(t.Context(), &archive, out.dir); err != nil {
		t.Fatal(err)
	}
	if !meta.Dirty || meta.Base != base || out.git("rev-parse", "HEAD^") != base {
		t.Errorf("meta %+v, want a snapshot on top of %s", meta, base)
	}
	if got := out.git("ls-files"); got != "-option\n.gitattributes\n.gitignore\nREADME\nnew/file" {
		t.Errorf("files:\n%s", got)
	}
	if got, _ := os.ReadFile(out.dir + "/README"); string(got) != "changed\n" {
		t.Errorf("README holds %q", got)
	}
}

func TestUserIgnoresAreHonoured(t *testing.T) {
	r := newRepo(t)
	r.write("private.env", "x")
	home := t.TempDir()
	t.Setenv("HOME", home)
	if err := os.WriteFile(home+"/.gitconfig", []byte("[core]\n\texcludesFile = ~/ignored\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home+"/ignored", []byte("*.env\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := gitrepo.Pack(t.Context(), r.dir, gitrepo.PackOptions{}, &bytes.Buffer{}); err != nil {
		t.Errorf("a file that the user ignores everywhere counts as a change: %v", err)
	}
}

func TestPackStops(t *testing.T) {
	r := newRepo(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := gitrepo.Pack(ctx, r.dir, gitrepo.PackOptions{}, &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want cancelled", err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("needs /dev/full")
	}
	defer full.Close()
	if _, err := gitrepo.Pack(t.Context(), r.dir, gitrepo.PackOptions{}, full); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v, want no space", err)
	}
}
