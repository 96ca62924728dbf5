package gitrepo_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/agentlab/agentlab/core/gitrepo"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestClone(t *testing.T) {
	r := newRepo(t)
	first := r.git("rev-parse", "HEAD")
	r.git("tag", "-m", "one", "v1")
	r.git("branch", "side")
	r.write("README", "more\n")
	r.write(".gitattributes", "* filter=trap\n")
	second := r.commit("second")
	r.git("config", "uploadpack.allowAnySHA1InWant", "true")
	hidden := r.git("commit-tree", "-m", "on no branch", "HEAD^{tree}")
	for ref, want := range map[string][2]string{
		"": {second, "trunk"}, "side": {first, "side"}, "refs/heads/side": {first, "side"}, "v1": {first, "agentlab"}, first: {first, "agentlab"}, hidden: {hidden, "agentlab"},
	} {
		dir := filepath.Join(t.TempDir(), "repo")
		meta, err := gitrepo.Clone(t.Context(), dir, gitrepo.CloneOptions{URL: "file://" + r.dir, Ref: ref})
		if err != nil {
			t.Errorf("%q: %v", ref, err)
			continue
		}
		out := repo{t, dir}
		if meta.Head != want[0] || out.git("rev-parse", "HEAD") != want[0] || out.git("symbolic-ref", "--short", "HEAD") != want[1] {
			t.Errorf("%q: %+v on %s", ref, meta, out.git("symbolic-ref", "HEAD"))
		}
		if got := out.git("status", "--porcelain"); got != "" {
			t.Errorf("%q: not clean: %s", ref, got)
		}
	}
}

func TestCloneRefuses(t *testing.T) {
	r := newRepo(t)
	witness := filepath.Join(t.TempDir(), "witness")
	for name, c := range map[string]struct {
		opts  gitrepo.CloneOptions
		class fault.Class
	}{
		"no such ref":   {gitrepo.CloneOptions{URL: "file://" + r.dir, Ref: "nope"}, fault.NotFound},
		"no remote":     {gitrepo.CloneOptions{URL: "file:///nonexistent"}, fault.Unavailable},
		"a program":     {gitrepo.CloneOptions{URL: "ext::touch " + witness}, fault.Unavailable},
		"an option":     {gitrepo.CloneOptions{URL: "--upload-pack=touch " + witness}, fault.Invalid},
		"ref as option": {gitrepo.CloneOptions{URL: "file://" + r.dir, Ref: "--upload-pack=touch " + witness}, fault.Invalid},
	} {
		if _, err := gitrepo.Clone(t.Context(), filepath.Join(t.TempDir(), "x"), c.opts); !errors.Is(err, c.class) {
			t.Errorf("%s: %v, want %s", name, err, c.class)
		}
	}
	if _, err := os.Stat(witness); err == nil {
		t.Error("a program was run")
	}
}
