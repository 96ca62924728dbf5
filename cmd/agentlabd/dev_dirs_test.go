package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/sdk/fault"
)

func TestClaimDir(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: directories of other users are made")
	}
	top := t.TempDir()
	dir := func(name string, mode os.FileMode, uid int) string {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	full := dir("full", 0o755, 0)
	if err := os.WriteFile(filepath.Join(full, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(top, "link")
	if err := os.Symlink(dir("target", 0o755, 0), link); err != nil {
		t.Fatal(err)
	}
	strangers := dir("strangers", 0o755, 12345)
	for path, ok := range map[string]bool{
		filepath.Join(top, "new"): true, dir("empty", 0o755, 0): true,
		full: false, link: false, strangers: false, dir("open", 0o777, 0): false,
		filepath.Join(strangers, "below"): false, filepath.Join(dir("shared", 0o777|os.ModeSticky, 0), "below"): true,
	} {
		if err := claimDir(path, "/run/x", "--flag"); (err == nil) != ok {
			t.Errorf("claim %s: %v", path, err)
		}
		if marked(path) != ok {
			t.Errorf("%s: marked is %v", path, !ok)
		}
	}
	if err := claimDir(filepath.Join(top, "new"), "/run/x", "--flag"); err != nil {
		t.Errorf("claim once more: %v", err)
	}
}

func TestStopLeavesWhatIsNotOurs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it stops a daemon of root")
	}
	o := devOptions{dir: filepath.Join(t.TempDir(), "dev"), runDir: t.TempDir(), plugins: "/"}
	if err := claimDir(o.dir, o.runDir, "--dev-dir"); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(o.runDir, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := stopDev(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error("a folder that --dev did not make was removed")
	}
	if _, err := os.Stat(o.dir); err == nil {
		t.Error("the dev daemon's folder is left")
	}
}

// devPair is what a start of a dev daemon leaves, whose configuration somebody broke.
func devPair(t *testing.T) devOptions {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it starts and stops a daemon of root")
	}
	top := t.TempDir()
	o := devOptions{dir: filepath.Join(top, "dev"), runDir: filepath.Join(top, "run"), plugins: "/"}
	err := errors.Join(makeDirs(o), os.Mkdir(filepath.Join(o.dir, "data"), 0o700),
		os.WriteFile(filepath.Join(o.dir, devConfig), []byte("plugin \"x\" {\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// A start that is refused has changed nothing, and a stop ends no daemon but that of
// its directory.
func TestDirectoriesOfAnotherDevDaemon(t *testing.T) {
	o := devPair(t)
	beside := filepath.Join(filepath.Dir(o.dir), "other")
	refused := func(what string, o devOptions, class fault.Class, hint string, f func(devOptions) error) {
		t.Helper()
		if err := f(o); !errors.Is(err, class) || !strings.Contains(fault.HintOf(err), hint) {
			t.Errorf("%s: %v (%s), want %s and in the hint %q", what, err, fault.HintOf(err), class, hint)
		}
	}
	start := func(o devOptions) error { _, err := prepareDev(o); return err }
	stop := func(o devOptions) error { return stopDev(t.Context(), o) }

	refused("another run directory", devOptions{dir: o.dir, runDir: beside}, fault.Exists, "--dev-run-dir "+o.runDir, start)
	refused("another directory", devOptions{dir: beside, runDir: o.runDir}, fault.Exists, "--stop --dev-dir "+o.dir, start)
	if err := os.MkdirAll(beside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(filepath.Join(beside, markName), []byte(o.runDir+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	refused("stop by another directory", devOptions{dir: beside, runDir: o.runDir}, fault.Exists, "--stop --dev-dir "+o.dir, stop)

	release, err := lockDir(filepath.Join(o.dir, "data"), "")
	if err != nil {
		t.Fatal(err)
	}
	refused("a daemon runs", o, fault.Locked, fmt.Sprintf("process %d", os.Getpid()), start)
	refused("a daemon that is not found", o, fault.Conflict, "end it", stop)
	if text, err := os.ReadFile(filepath.Join(o.dir, devConfig)); err != nil || string(text) != "plugin \"x\" {\n" {
		t.Errorf("the configuration of the daemon is now %q, %v", text, err)
	}
	release()

	o.runDir = "/run/elsewhere" // a flag that was forgotten, and a configuration that cannot be read
	if err := stop(o); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{o.dir, filepath.Join(filepath.Dir(o.dir), "run")} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
}

// Where one of two directories has gone, or was never taken, the other is free.
func TestHalfOfAPairIsFree(t *testing.T) {
	for name, spoil := range map[string]func(o devOptions) error{
		"the run directory has gone": func(o devOptions) error { return os.RemoveAll(o.runDir) },
		"its mark has gone":          func(o devOptions) error { return os.Remove(filepath.Join(o.runDir, markName)) },
		"the directory has gone":     func(o devOptions) error { return os.RemoveAll(o.dir) },
		"of an earlier version":      func(o devOptions) error { return os.WriteFile(filepath.Join(o.runDir, markName), nil, 0o644) },
	} {
		o := devPair(t)
		if err := spoil(o); err != nil {
			t.Fatal(err)
		}
		for _, o := range []devOptions{o, {dir: o.dir + "2", runDir: o.runDir}, {dir: o.dir, runDir: o.runDir + "2"}} {
			if err := o.checkFree(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
