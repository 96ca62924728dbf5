package python

import (
	"bytes"
	"errors"
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

// What is committed below gen is what scripts/generate.sh makes.
func TestGeneratedIsOfToday(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "protoc", "--version").Output()
	if err != nil || string(out) != "libprotoc 3.21.12\n" { // another one writes other text
		t.Skipf("needs Debian 12's protobuf-compiler: %q, %v", out, err)
	}
	dir := t.TempDir()
	files := []string{"plugin/v1/plugin", "plugin/v1/schema", "hypervisor/v1/hypervisor"}
	args := []string{"-I", "../../proto", "-I", "/usr/include", "--python_out=" + dir}
	for _, f := range files {
		args = append(args, "../../proto/agentlab/"+f+".proto")
	}
	if out, err := exec.CommandContext(t.Context(), "protoc", args...).CombinedOutput(); err != nil {
		t.Fatalf("protoc: %v: %s", err, out)
	}
	for _, f := range files {
		name := "agentlab/" + f + "_pb2.py"
		want, err1 := os.ReadFile(filepath.Join(dir, name))
		got, err2 := os.ReadFile(filepath.Join("gen", name))
		if err := errors.Join(err1, err2); err != nil || !bytes.Equal(want, got) {
			t.Errorf("gen/%s is old, run make generate (%v)", name, err)
		}
	}
}
