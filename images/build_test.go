package images

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// standIns are for programs that ask for root or for room.
var standIns = map[string]string{
	"id":      "echo 0",
	"df":      "echo; echo / 1 1 99999 1% /",
	"setpriv": `shift 2; exec "$@"`,
	"unshare": `while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"`,
	"chroot":  "echo package 1",
}

// needed are programs that build.sh wants and only its stages call.
var needed = []string{"mmdebstrap", "mke2fs", "qemu-img", "gcc", "cpio", "lz4", "sfdisk"}

// programs makes a directory of them for PATH.
func programs(t *testing.T, more map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range needed {
		write(t, filepath.Join(dir, name), "#!/bin/sh\nexit 1\n")
	}
	for _, all := range []map[string]string{standIns, more} {
		for name, text := range all {
			write(t, filepath.Join(dir, name), "#!/bin/sh\n"+text+"\n")
		}
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, path string, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "PATH="+path+":"+os.Getenv("PATH"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", argv, err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// copied is a copy of the scripts whose stages are replaced.
func copied(t *testing.T, stages map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	err := errors.Join(os.CopyFS(dir+"/images", os.DirFS(".")), os.CopyFS(dir+"/scripts", os.DirFS("../scripts")))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir+"/images", func(path string, _ os.DirEntry, err error) error {
		if text, ok := stages[filepath.Base(path)]; ok {
			write(t, path, "#!/bin/sh\nset -e\n"+text+"\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The runner of an image is the one that the image's key stands for, also when
// it is built anew while the image is.
func TestImageHoldsTheRunnerItWasAskedFor(t *testing.T) {
	runner := filepath.Join(t.TempDir(), "agent-runner")
	const first, second = "first", "second"
	dir := copied(t, map[string]string{
		"rootfs.sh": `echo id >"$1/id"; echo tar >"$1/rootfs.tar"`,
		"disk.sh":   `echo ` + second + ` >` + runner + `; cp "$2" "$3/root.qcow2"; echo 1 6.1 >"$3/facts"`,
	})
	cache := t.TempDir()
	path := programs(t, nil)
	build := func() string {
		return run(t, path, dir+"/images/build.sh", "--runner", runner, "--cache", cache)
	}
	write(t, runner, first+"\n")
	old := build()
	held, err := os.ReadFile(old + "/root.qcow2")
	if err != nil || string(held) != first+"\n" {
		t.Errorf("the image holds %q, %v", held, err)
	}
	sum := sha256.Sum256([]byte(first + "\n"))
	manifest, err := os.ReadFile(old + "/manifest.json")
	if err != nil || !strings.Contains(string(manifest), hex.EncodeToString(sum[:])[:12]) {
		t.Errorf("manifest %s, %v", manifest, err)
	}
	if again := build(); again == old {
		t.Error("another runner has the same image")
	}
	write(t, runner, first+"\n")
	if again := build(); again != old {
		t.Errorf("the same runner has another image, %s and %s", old, again)
	}
	if left, err := os.ReadDir(cache + "/tmp"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
