package main

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/agentlab/agentlab/core/config"
)

func TestSocketIsForTheCallerOfSudoInDevOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the socket is given away")
	}
	t.Setenv("SUDO_UID", "12345")
	t.Setenv("SUDO_GID", "100")
	for _, dev := range []bool{false, true} {
		l := layout{&config.Config{RunDir: t.TempDir()}, dev}
		ln, err := l.listen()
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(filepath.Join(l.cfg.RunDir, "agentlabd.sock"))
		_ = ln.Close()
		if err != nil {
			t.Fatal(err)
		}
		owner := st.Sys().(*syscall.Stat_t)
		if given := owner.Uid == 12345; given != dev || owner.Gid == 100 || st.Mode().Perm() != 0o660 {
			t.Errorf("dev %v: socket of %d:%d, mode %v", dev, owner.Uid, owner.Gid, st.Mode())
		}
	}
}

func TestLayoutTakesNobodysDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: directories of other users are made")
	}
	shared := filepath.Join(t.TempDir(), "shared")
	if err := os.Mkdir(shared, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(shared, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(shared, "theirs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	strangers := filepath.Join(t.TempDir(), "strangers")
	if err := os.Mkdir(strangers, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(strangers, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{shared, strangers, filepath.Join(strangers, "below")} {
		for _, cfg := range []config.Config{{DataDir: dir, RunDir: t.TempDir()}, {DataDir: t.TempDir(), RunDir: dir}} {
			if err := (layout{&cfg, false}).make(); err == nil {
				t.Errorf("data %s, run %s was taken", cfg.DataDir, cfg.RunDir)
			}
		}
	}
	if st, err := os.Stat(shared); err != nil || st.Mode().Perm() != 0o777 || st.Mode()&os.ModeSticky == 0 {
		t.Errorf("the mode was changed: %v, %v", st.Mode(), err)
	}
	own := layout{&config.Config{DataDir: t.TempDir(), RunDir: t.TempDir()}, false}
	for range 2 {
		if err := own.make(); err != nil {
			t.Fatal(err)
		}
		unlock, err := own.lock()
		if err != nil {
			t.Fatal(err)
		}
		unlock()
	}
}

// TestDirectoriesFromSystemd: they are taken whatever they hold, and the run
// directory is shut for all but the group.
func TestDirectoriesFromSystemd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a directory is given to a group")
	}
	data, run := t.TempDir(), t.TempDir()
	for _, dir := range []string{data, run} {
		if err := os.WriteFile(filepath.Join(dir, "theirs"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("STATE_DIRECTORY", "/var/lib/other:"+data)
	t.Setenv("RUNTIME_DIRECTORY", run)
	for dev, want := range map[bool]os.FileMode{false: 0o750, true: 0o755} {
		if err := (layout{&config.Config{DataDir: data, RunDir: run}, dev}).make(); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(run)
		if err != nil {
			t.Fatal(err)
		}
		if group := int(st.Sys().(*syscall.Stat_t).Gid); st.Mode().Perm() != want || group != groupID() {
			t.Errorf("dev %v: mode %v, group %d; want %v, %d", dev, st.Mode(), group, want, groupID())
		}
	}
}

func TestArtifactsOfAJobAreRemovedAlone(t *testing.T) {
	l := layout{&config.Config{DataDir: t.TempDir()}, false}
	for _, dir := range []string{"job_a/sub", "job_b", ".parts", "notes"} {
		if err := os.MkdirAll(filepath.Join(l.artifacts(), dir), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(l.artifacts(), dir, "f"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // gone is success
		if err := l.cleanArtifacts(t.Context(), "job_a"); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.cleanArtifacts(t.Context(), "../artifacts"); err == nil {
		t.Error("a path that leaves the directory was removed")
	}
	jobs, err := l.artifactJobs(t.Context())
	if err != nil || !slices.Equal(jobs, []string{"job_b"}) {
		t.Errorf("jobs %v, %v", jobs, err)
	}
	if _, err := os.Stat(filepath.Join(l.artifacts(), "notes", "f")); err != nil {
		t.Error(err)
	}
}
