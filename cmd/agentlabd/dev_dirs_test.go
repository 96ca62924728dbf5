package main

import (
	"os"
	"path/filepath"
	"testing"
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
		if err := claimDir(path, "--flag"); (err == nil) != ok {
			t.Errorf("claim %s: %v", path, err)
		}
		if marked(path) != ok {
			t.Errorf("%s: marked is %v", path, !ok)
		}
	}
	if err := claimDir(filepath.Join(top, "new"), "--flag"); err != nil {
		t.Errorf("claim once more: %v", err)
	}
}

func TestStopLeavesWhatIsNotOurs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it stops a daemon of root")
	}
	o := devOptions{dir: filepath.Join(t.TempDir(), "dev"), runDir: t.TempDir(), plugins: "/"}
	if err := claimDir(o.dir, "--dev-dir"); err != nil {
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
