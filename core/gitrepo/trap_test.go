package gitrepo_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/gitrepo"
)

// A rewritten address must not lead a fetch away from the checked commits, to a
// protocol whose program the repository names.
func TestFetchKeepsItsAddress(t *testing.T) {
	r := newRepo(t)
	meta, guest := roundTrip(t, r.dir, gitrepo.PackOptions{})
	guest.write("result", "done\n")
	want := guest.commit("work")
	bundle := filepath.Join(t.TempDir(), "b")
	if _, err := gitrepo.MakeChanges(t.Context(), guest.dir, meta.Base, bundle); err != nil {
		t.Fatal(err)
	}
	witness := r.arm()
	r.git("-c", "core.fsmonitor=false", "config", "url.git://127.0.0.1:1/.insteadOf", os.TempDir()+"/")
	if got, err := gitrepo.Fetch(t.Context(), r.dir, bundle, "agentlab/job_1"); err == nil && got != want {
		t.Errorf("fetched %s, want %s", got, want)
	}
	unharmed(t, witness)
}

// What a submodule has in its own configuration must not run either.
func TestPackRunsNothingInSubmodules(t *testing.T) {
	r := newRepo(t)
	sub := repo{t, filepath.Join(r.dir, "sub")}
	r.git("init", "--quiet", sub.dir)
	sub.write("file", "one\n")
	sub.commit("sub")
	r.git("-c", "advice.addEmbeddedRepo=false", "add", "sub")
	r.commit("with sub")
	witness := sub.arm()
	if err := os.WriteFile(filepath.Join(sub.dir, ".git/info/attributes"), []byte("* filter=trap\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Of the same length, so that only a look at the content tells.
	sub.write("file", "two\n")
	if err := os.Chtimes(filepath.Join(sub.dir, "file"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	r.write("README", "changed\n")
	r.write("new dir/new", "new\n")
	if err := os.Remove(filepath.Join(r.dir, "src/main.c")); err != nil {
		t.Fatal(err)
	}
	_, guest := roundTrip(t, r.dir, gitrepo.PackOptions{Dirty: true})
	unharmed(t, witness)
	if got := guest.git("show", "HEAD:README"); got != "changed" {
		t.Errorf("README holds %q", got)
	}
	if got := guest.git("ls-tree", "-r", "--name-only", "HEAD"); got != "README\nnew dir/new\nsub" {
		t.Errorf("the snapshot has %q", got)
	}
}
