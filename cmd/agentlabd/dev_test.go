package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
