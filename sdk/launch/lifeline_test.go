package launch_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
)

func runByHand(t *testing.T, path string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = []string{modeKey + "=serve"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// actAsHost starts a plugin, tells its pid, and waits to be killed.
func actAsHost() {
	self, _ := os.Executable()
	spec := launch.Spec{
		Path: self, Kind: "secrets", Name: "toy", RunDir: os.Getenv("RUN_DIR"),
		Env: []string{modeKey + "=" + os.Getenv("PLUGIN_MODE")}, Log: hclog.NewNullLogger(),
	}
	var err1 error
	if os.Getenv("CONFINED") != "" {
		spec.Grant, err1 = launch.Tightest(self)
	}
	if os.Getenv("FREE") != "" { // as in a daemon that closed what it was started with
		r, w, err := os.Pipe() // the runtime's own descriptors are open from here on
		err1 = errors.Join(err1, err, r.Close(), w.Close(), unix.Close(3))
	}
	p, err2 := launch.Start(context.Background(), spec)
	if err := errors.Join(err1, err2); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(p.PID())
	select {}
}

func TestPluginEndsWithItsHost(t *testing.T) {
	spec := testSpec(t, "host", io.Discard)
	host := exec.Command(spec.Path)
	host.Env = []string{modeKey + "=host", "RUN_DIR=" + shortDir(t), "PLUGIN_MODE=serve"}
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	var line [256]byte
	n, _ := out.Read(line[:])
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil || !alive(pid) {
		t.Fatalf("host said %q", line[:n])
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = host.Wait()
	awaitGone(t, pid)
}

// The first descriptor that is free may be one that the plugin gets something as.
func TestBinaryAtALowDescriptor(t *testing.T) {
	spec := testSpec(t, "host", io.Discard)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	host := exec.Command(spec.Path)
	host.Env = []string{modeKey + "=host", "RUN_DIR=" + shortDir(t), "PLUGIN_MODE=serve", "CONFINED=yes", "FREE=3"}
	host.ExtraFiles = []*os.File{null}
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	var line [256]byte
	n, _ := out.Read(line[:])
	_ = host.Process.Kill()
	_ = host.Wait()
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatalf("host said %q", line[:n])
	}
	awaitGone(t, pid)
}

// A plugin that does not watch its standard input ends with its host as well.
func TestDeafPluginEndsWithItsHost(t *testing.T) {
	for _, confined := range []string{"", "yes"} {
		t.Run("confined="+confined, func(t *testing.T) { deafPluginEnds(t, confined) })
	}
}

func deafPluginEnds(t *testing.T, confined string) {
	spec := testSpec(t, "host", io.Discard)
	host := exec.Command(spec.Path)
	host.Env = []string{modeKey + "=host", "RUN_DIR=" + shortDir(t), "PLUGIN_MODE=silent", "CONFINED=" + confined}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	for range 100 {
		time.Sleep(20 * time.Millisecond)
		if pid = childOf(t, host.Process.Pid); pid != 0 {
			break
		}
	}
	if pid == 0 {
		t.Fatal("host started nothing")
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = host.Wait()
	awaitGone(t, pid)
}

func childOf(t *testing.T, parent int) int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		text, _ := os.ReadFile(path)
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			return pid
		}
	}
	return 0
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "al")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// The lifeline works alone too, where Pdeathsig was cleared by an exec.
func TestPluginEndsWithStandardInput(t *testing.T) {
	spec := testSpec(t, "serve", io.Discard)
	cmd := exec.Command(spec.Path)
	cmd.Env = []string{modeKey + "=serve", "AGENTLAB_PLUGIN=agentlab", "PLUGIN_PROTOCOL_VERSIONS=1", "PLUGIN_UNIX_SOCKET_DIR=" + shortDir(t)}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if !alive(cmd.Process.Pid) {
		t.Fatal("plugin ended while its input was open")
	}
	_ = stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestBinaryIsVerified(t *testing.T) {
	spec := testSpec(t, "serve", io.Discard)
	content, err := os.ReadFile(spec.Path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	dir := shortDir(t)
	binary := filepath.Join(dir, "agentlab-plugin-toy")
	link := filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(binary, content, 0o755), os.Symlink(binary, link)); err != nil {
		t.Fatal(err)
	}
	elsewhere := bytes.Clone(content)
	elsewhere[18], elsewhere[19] = 243, 0 // e_machine: RISC-V
	script := func(text string) func() error {
		return func() error { return os.WriteFile(binary+".sh", []byte(text), 0o755) }
	}
	pin := hex.EncodeToString(sum[:])
	tests := []struct {
		name, path, pin string
		prepare         func() error
		class           fault.Class
		text            string
	}{
		{"missing", binary + "x", "", nil, fault.NotFound, "does not exist"},
		{"folder", dir, "", nil, fault.Denied, "not an executable file"},
		{"pin", binary, strings.Repeat("0", 64), nil, fault.Denied, pin},
		{"other machine", binary + ".riscv", "", func() error { return os.WriteFile(binary+".riscv", elsewhere, 0o755) }, fault.Denied, "for another machine: for RISCV, and this is"},
		{"cut short", binary + ".cut", "", func() error { return os.WriteFile(binary+".cut", content[:10], 0o755) }, fault.Denied, "is no program"},
		{"text", binary + ".sh", "", script("exec plugin"), fault.Denied, "is no program"},
		{"no interpreter", binary + ".sh", "", script("#! \n"), fault.Denied, "without an interpreter"},
		{"missing interpreter", binary + ".sh", "", script("#!/usr/bin/python9 -u\n"), fault.NotFound, "a script for /usr/bin/python9, which does not exist"},
		{"open interpreter", binary + ".sh", "", func() error {
			return errors.Join(script("#!"+binary+".i\n")(), os.WriteFile(binary+".i", content, 0o755), os.Chmod(binary+".i", 0o757))
		}, fault.Denied, "toy.i may be written by others"},
		{"loop of links", link + "loop", "", func() error { return os.Symlink("linkloop", link+"loop") }, fault.Denied, "too many symbolic links"},
		{"link through a file", binary + "/x", "", nil, fault.NotFound, "does not exist"},
		{"link in an open folder", dir + "/open/link", "", func() error {
			return errors.Join(os.Mkdir(dir+"/open", 0o755), os.Chmod(dir+"/open", 0o777), os.Symlink("../agentlab-plugin-toy", dir+"/open/link"))
		}, fault.Denied, "open may be written by others"},
		{"below an open folder", dir + "/open/root/link", "", func() error {
			return errors.Join(os.Mkdir(dir+"/open/root", 0o755), os.Symlink(binary, dir+"/open/root/link"))
		}, fault.Denied, "open may be written by others"},
		{"foreign link", dir + "/foreign", "", func() error {
			return errors.Join(os.Symlink(binary, dir+"/foreign"), os.Lchown(dir+"/foreign", 4711, 0))
		}, fault.Denied, "foreign belongs to uid 4711"},
		{"foreign link in a sticky folder", dir + "/sticky/link", "", func() error {
			return errors.Join(os.Mkdir(dir+"/sticky", 0o755), os.Chmod(dir+"/sticky", 0o777|os.ModeSticky),
				os.Symlink(binary, dir+"/sticky/link"), os.Lchown(dir+"/sticky/link", 4711, 0))
		}, fault.Denied, "link belongs to uid 4711"},
		{"not executable", binary, "", func() error { return os.Chmod(binary, 0o644) }, fault.Denied, "not an executable"},
		{"group may write", binary, "", func() error { return os.Chmod(binary, 0o775) }, fault.Denied, "may be written by others"},
		{"behind a link", link, "", func() error { return os.Chmod(binary, 0o757) }, fault.Denied, "may be written by others"},
		{"open folder", binary, "", func() error { return errors.Join(os.Chmod(binary, 0o755), os.Chmod(dir, 0o777)) }, fault.Denied, dir},
		{"foreign owner", binary, "", func() error { return errors.Join(os.Chmod(dir, 0o755), os.Chown(binary, 4711, 0)) }, fault.Denied, "uid 4711"},
		{"foreign folder", binary, "", func() error { return errors.Join(os.Chown(binary, 0, 0), os.Chown(dir, 4711, 0)) }, fault.Denied, "uid 4711"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if strings.HasPrefix(tt.name, "foreign") && os.Geteuid() != 0 {
				t.Skip("needs root to give files away")
			}
			if tt.prepare != nil {
				if err := tt.prepare(); err != nil {
					t.Fatal(err)
				}
			}
			spec.Path, spec.SHA256 = tt.path, tt.pin
			_, err := launch.Start(t.Context(), spec)
			if !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
		})
	}
	_ = os.Chown(dir, os.Geteuid(), -1)
	if err := errors.Join(os.Symlink("../link", dir+"/sticky/ours")); err != nil {
		t.Fatal(err)
	}
	spec.Path, spec.SHA256 = dir+"/sticky/ours", strings.ToUpper(pin)
	start(t, spec)
}

func TestScriptsStart(t *testing.T) {
	spec := testSpec(t, "serve", io.Discard)
	script := filepath.Join(shortDir(t), "plugin.sh")
	text := fmt.Sprintf("#!/bin/sh\nexec %s\n", spec.Path)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	spec.Path = script
	start(t, spec)
}
