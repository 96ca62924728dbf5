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

// The VMs of an installed daemon have users from 1 900 000 000 on, those of
// other dev daemons their own.
func TestDevDaemonHasUsersOfItsOwn(t *testing.T) {
	base := func(o devOptions) (base uint32) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "config.hcl")
		if err := os.MkdirAll(filepath.Join(o.dir, "profiles"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := writeDevConfig(o, path); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(text), "uid_base = ")
		if _, err := fmt.Sscan(after, &base); err != nil {
			t.Fatalf("no uid_base in %s", text)
		}
		if base < 1_910_000_000 || base > 2_000_000_000-2000 {
			t.Errorf("uid_base %d is not apart from the default or exceeds the plugin's limit", base)
		}
		return base
	}
	one, two := devOptions{dir: t.TempDir()}, devOptions{dir: t.TempDir(), template: "/images/x"}
	if a, b := base(one), base(two); a == b || a != base(one) {
		t.Errorf("bases %d and %d, then %d", a, b, base(one))
	}
}

func TestDevTemplateMustBeOne(t *testing.T) {
	dir := t.TempDir()
	file, good := filepath.Join(dir, "file"), filepath.Join(dir, "good")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(good, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(good, "manifest.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for template, want := range map[string]string{
		"": "", good: "", filepath.Join(dir, "none"): "there is no", file: "is not a folder", dir: "has no manifest.json",
	} {
		err := devOptions{template: template}.checkTemplate()
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", template, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "--template: ") || !strings.Contains(err.Error(), want) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v, want %q with the flag and a hint", template, err, want)
		}
	}
}

// What --stop ends is where the daemon was, not where the flags' defaults are.
func TestStopFindsTheRunDirectory(t *testing.T) {
	o := devOptions{dir: t.TempDir(), runDir: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(o.dir, "profiles"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeDevConfig(o, filepath.Join(o.dir, devConfig)); err != nil {
		t.Fatal(err)
	}
	later := devOptions{dir: o.dir, runDir: "/run/elsewhere"}
	if got := later.lastRunDir(); got != "/run/elsewhere" {
		t.Errorf("a directory that is not marked as ours is taken: %s", got)
	}
	if err := os.WriteFile(filepath.Join(o.runDir, markName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := later.lastRunDir(); got != o.runDir {
		t.Errorf("run directory %s, want %s", got, o.runDir)
	}
}

// Nobody but a vendor's plugin knows what its VMs are, so --stop says when it could
// not be asked to destroy them.
func TestStopTellsOfVMsOfOthers(t *testing.T) {
	o := devOptions{dir: t.TempDir(), runDir: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(o.dir, "profiles"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(o.dir, devConfig)
	if err := writeDevConfig(o, path); err != nil {
		t.Fatal(err)
	}
	if got := o.foreignHypervisor(); got != "" {
		t.Errorf("VMs of %s are nobody's", got)
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(strings.Replace(string(text), `"qemu"`, `"tinybox"`, 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := o.foreignHypervisor(); got != "tinybox" {
		t.Errorf("the hypervisor is %q", got)
	}
	err = o.destroySandboxes(t.Context(), "tinybox")
	if !errors.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "VMs of the plugin tinybox may go on") {
		t.Errorf("without a daemon: %v", err)
	}
}

func TestStopOfNothingFails(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	if err := stopDev(t.Context(), devOptions{dir: dir, runDir: dir}); !errors.Is(err, fault.NotFound) || fault.HintOf(err) == "" {
		t.Errorf("stop of what is no dev daemon's: %v", err)
	}
}
