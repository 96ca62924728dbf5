package gitrepo_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/agentlab/agentlab/core/gitrepo"
	"github.com/agentlab/agentlab/sdk/fault"
)

// A repository that names a directory of another one as its working copy must
// not have the other one packed or written to in its place.
func TestWorkingCopyOfAnotherRepository(t *testing.T) {
	outer := newRepo(t)
	outer.write("private", "of the user\n")
	outer.commit("private")
	plain := repo{t, t.TempDir()} // in no repository at all
	for name, dir := range map[string]string{"top": outer.dir, "below the top": filepath.Join(outer.dir, "src"), "none": plain.dir} {
		t.Run(name, func(t *testing.T) {
			inner := repo{t, filepath.Join(dir, "inner")}
			if err := os.Mkdir(inner.dir, 0o755); err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(inner.dir)
			inner.git("init", "--quiet")
			inner.write("file", "x\n")
			inner.commit("inner")
			inner.git("config", "core.worktree", dir)
			before := outer.state()
			var archive bytes.Buffer
			_, err := gitrepo.Pack(t.Context(), inner.dir, gitrepo.PackOptions{Dirty: true}, &archive)
			if fault.ClassOf(err) != fault.Denied || fault.HintOf(err) == "" || archive.Len() > 0 {
				t.Errorf("pack: %v of class %s, %d bytes", err, fault.ClassOf(err), archive.Len())
			}
			if outer.state() != before {
				t.Error("the other repository was written to")
			}
		})
	}
}

// Worktrees and submodules have their git directories elsewhere, and a
// submodule's names its working copy.
func TestPackWhereGitDirectoriesAreElsewhere(t *testing.T) {
	r := newRepo(t)
	library := newRepo(t)
	library.write("lib.c", "int lib;\n")
	inLibrary := library.commit("lib")
	r.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", library.dir, "sub")
	inMain := r.commit("with submodule")
	tree := filepath.Join(t.TempDir(), "tree")
	r.git("worktree", "add", "--quiet", tree)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(r.dir, link); err != nil {
		t.Fatal(err)
	}
	sub := repo{t, filepath.Join(r.dir, "sub")}
	if sub.git("config", "core.worktree") == "" {
		t.Fatal("the submodule names no working copy: this shows nothing")
	}
	for dir, want := range map[string]string{
		sub.dir: inLibrary, filepath.Join(sub.dir, "src"): inLibrary,
		tree: inMain, filepath.Join(tree, "src"): inMain, filepath.Join(link, "src"): inMain,
	} {
		meta, _ := roundTrip(t, dir, gitrepo.PackOptions{})
		if meta.Head != want {
			t.Errorf("%s: packed %s, want %s", dir, meta.Head, want)
		}
	}
}
