package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/agentlab/agentlab/plugins/sim/internal/driver"
	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/conformance"
	"github.com/agentlab/agentlab/sdk/exposure"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
)

func openWorld(t *testing.T) *world.World {
	t.Helper()
	w, err := world.Open(filepath.Join(t.TempDir(), "world"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

const value = "hunter2-hunter2"

func options(t *testing.T, w *world.World) (conformance.HypervisorOptions, conformance.NetworkOptions, conformance.SecretsOptions, conformance.ExposureOptions) {
	t.Helper()
	count := func(ctx context.Context) (int, error) {
		n, err := w.Seq(ctx)
		return int(n), err
	}
	for name, doc := range map[string]string{
		"default.yaml": "version: 1\nenv:\n  API_KEY: " + value + "\n",
		"broken.json":  `{"version":1,"envv":{"A":"` + value + `"}}`,
	} {
		if err := os.WriteFile(filepath.Join(w.Dir(), world.Bundles, name), []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host := network.Host{Bridge: "vmbr1", Subnet: "127.77.0.0/16", Address: "127.77.0.1", GuestTCPPorts: []uint16{8844}}
	return conformance.HypervisorOptions{Effects: count},
		conformance.NetworkOptions{Host: host, CreateInterface: true, Effects: count},
		conformance.SecretsOptions{Bundle: "default", Env: "API_KEY", Value: value, Broken: "broken"},
		conformance.ExposureOptions{Target: "127.77.0.12", Ports: [2]uint16{9001, 9002}, Effects: count}
}

func TestConformance(t *testing.T) {
	w := openWorld(t)
	h, n, s, e := options(t, w)
	run(t, "hypervisor", conformance.Hypervisor(conformance.Local[hypervisor.Driver](driver.NewHypervisor(w, nil)), h))
	run(t, "network", conformance.Network(conformance.Local[network.Driver](driver.NewNetwork(w)), n))
	run(t, "secrets", conformance.Secrets(conformance.Local[secrets.Driver](driver.NewSecrets(w)), s))
	run(t, "exposure", conformance.Exposure(conformance.Local[exposure.Driver](driver.NewExposure(w)), e))
	notEmpty(t, w)
}

func run(t *testing.T, kind string, checks []conformance.Check) {
	t.Run(kind, func(t *testing.T) { conformance.Run(t, checks) })
}

// notEmpty shows that the suites really did something, and left nothing.
func notEmpty(t *testing.T, w *world.World) {
	t.Helper()
	log, err := w.Effects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ops := map[string]int{}
	for _, e := range log {
		ops[e.Op]++
	}
	for _, op := range []string{"vm.create", "vm.finish", "vm.power", "vm.destroy", "network.attach", "network.detach", "exposure.publish", "exposure.unpublish"} {
		if ops[op] == 0 {
			t.Errorf("no effect %s among %v", op, ops)
		}
	}
	if list, err := w.VMs(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("machines left: %+v, %v", list, err)
	}
}

// build makes the real binary, once.
func build(t *testing.T) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sim")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "agentlab-plugin-sim")
	if bin := os.Getenv("AGENTLAB_BIN"); bin != "" { // make test has built it; to link it again takes seconds
		content, err := os.ReadFile(filepath.Join(bin, filepath.Base(path)))
		if err != nil {
			return "", err
		}
		return path, os.WriteFile(path, content, 0o755)
	}
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

func TestConformanceOfBinary(t *testing.T) {
	t.Parallel()
	w := openWorld(t)
	h, n, s, e := options(t, w)
	cfg, err := json.Marshal(config{World: w.Dir(), Heartbeat: "100ms"})
	if err != nil {
		t.Fatal(err)
	}
	plan := conformance.Plan{
		Binary: conformance.Binary{Path: build(t), Config: cfg}, Level: conformance.LevelResilience, Destructive: true,
		Kinds:      []plugin.Kind{plugin.Hypervisor, plugin.Network},
		Hypervisor: h, Network: n, Secrets: s, Exposure: e,
	}
	conformance.Test(t, plan)
	plan.Kinds, plan.Level = []plugin.Kind{plugin.Secrets, plugin.Exposure}, conformance.LevelSemantics
	plan.Only = []string{"secrets", "exposure", "capability"} // the rest is the same program's
	conformance.Test(t, plan)
	notEmpty(t, w)
}
