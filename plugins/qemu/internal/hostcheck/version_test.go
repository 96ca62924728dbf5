package hostcheck

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/agentlab/agentlab/plugins/qemu/internal/accel"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestParseVersion(t *testing.T) {
	for out, want := range map[string]accel.Version{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright": {Major: 7, Minor: 2},
		"QEMU emulator version 10.0.2":                                           {Major: 10},
	} {
		if got, err := parseVersion(out); err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", out, got, err, want)
		}
	}
	if _, err := parseVersion("hello"); err == nil {
		t.Error("no version was accepted")
	}
	if !older(accel.Version{Major: 7, Minor: 1}) || older(accel.Version{Major: 8}) || older(Oldest) {
		t.Error("older compares wrongly")
	}
}

func TestVersionFollowsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "qemu")
	var v Versions
	if _, err := v.QEMU(t.Context(), path); !errors.Is(err, fault.Unavailable) || fault.HintOf(err) == "" {
		t.Errorf("missing program: %v", err)
	}
	for _, text := range []string{"7.2", "10.1"} {
		script := "#!/bin/sh\necho QEMU emulator version " + text + ".0\n"
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := v.QEMU(t.Context(), path); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := v.QEMU(t.Context(), path); err != nil || got.Major != 10 {
		t.Errorf("after an upgrade: %v, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho broken >&2; exit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := v.QEMU(t.Context(), path)
	var e *fault.Error
	if !errors.As(err, &e) || e.ExitCode != 3 || e.Stderr != "broken\n" {
		t.Errorf("failing program: %+v", err)
	}
}
