package python

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/agentlab/agentlab/sdk/conformance"
)

// The script keeps its contract as a binary does.
func TestConformance(t *testing.T) {
	check := exec.CommandContext(t.Context(), "/usr/bin/python3", "-Ic", "import grpc, google.protobuf, cryptography")
	if out, err := check.CombinedOutput(); err != nil {
		t.Skipf("needs Debian's python3-grpcio, python3-protobuf, python3-cryptography (scripts/install_deps.sh test): %v: %s", err, out)
	}
	dir := filepath.Join(t.TempDir(), "plugin") // whoever can write the checkout need not be root
	if err := os.CopyFS(dir, os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "agentlab-plugin-pydir")
	for _, path := range []string{dir, script} {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conformance.Test(t, conformance.Plan{
		Binary: conformance.Binary{Path: script},
		Level:  conformance.LevelSemantics, Destructive: true,
		Hypervisor: conformance.HypervisorOptions{Template: "blank"},
	})
}
