package gitrepo_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/agentlab/agentlab/core/gitrepo"
)

// What a command under sudo writes into a user's repository must be the user's.
func TestSudoWritesAsTheCaller(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to stand in for sudo")
	}
	r := newRepo(t)
	r.write("README", "not committed\n")
	const uid, gid = 1234, 1235
	r.reachable()
	if out, err := exec.Command("chown", "-R", "1234:1235", r.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	t.Setenv("SUDO_UID", "1234")
	t.Setenv("SUDO_GID", "1235")
	var archive bytes.Buffer
	meta, err := gitrepo.Pack(t.Context(), r.dir, gitrepo.PackOptions{Dirty: true}, &archive)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SUDO_UID", "")
	guest := repo{t, filepath.Join(t.TempDir(), "repo")}
	if _, err := gitrepo.Unpack(t.Context(), &archive, guest.dir); err != nil {
		t.Fatal(err)
	}
	guest.write("result", "done\n")
	want := guest.commit("work")
	bundle := filepath.Join(t.TempDir(), "b")
	if _, err := gitrepo.MakeChanges(t.Context(), guest.dir, meta.Base, bundle); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SUDO_UID", "1234")
	if got, err := gitrepo.Fetch(t.Context(), r.dir, bundle, "agentlab/job_1"); err != nil || got != want {
		t.Fatalf("fetched %q, %v", got, err)
	}
	found := false
	err = filepath.Walk(r.dir, func(path string, st os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		owner := st.Sys().(*syscall.Stat_t)
		if owner.Uid != uid || owner.Gid != gid {
			t.Errorf("%s belongs to %d:%d", path, owner.Uid, owner.Gid)
		}
		found = found || strings.HasSuffix(path, "agentlab/job_1")
		return nil
	})
	if err != nil || !found {
		t.Errorf("no branch, %v", err)
	}
}
