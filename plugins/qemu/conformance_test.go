package main

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/conformance"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

func TestMain(m *testing.M) { os.Exit(testhost.Main(m)) }

// The contract, against the finished binary in processes of its own.
func TestBinaryConforms(t *testing.T) {
	testhost.Need(t)
	state, images := testhost.Folders(t)
	testhost.Template(t, images, testhost.Idle)
	binary := filepath.Join(t.TempDir(), "agentlab-plugin-qemu")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	config, err := json.Marshal(map[string]any{
		"template_dir": images, "uid_base": 3_000_000 + os.Getpid()%1000*2000, "accel": "tcg", "tcg_tb_mb": 32,
		"memory_templates": "manual", // a boot sector never says that it can be frozen
		"memory_cache":     "",
	})
	if err != nil {
		t.Fatal(err)
	}
	conformance.Test(t, conformance.Plan{
		Binary: conformance.Binary{Path: binary, Config: config, StateDir: state},
		Level:  conformance.LevelSemantics, Destructive: true,
		Hypervisor: conformance.HypervisorOptions{
			Template: "tiny", MemoryBytes: 64 << 20, Effects: effects(t, state),
			NIC: func(_ context.Context, vmid uint32, iface string) (hypervisor.NIC, error) {
				testhost.Tap(t, iface)
				return hypervisor.NIC{Bridge: "vmbr1", MAC: fmt.Sprintf("52:54:00:00:%02x:%02x", vmid>>8, vmid&0xff), Tap: iface}, nil
			},
		},
	})
}

// effects gives a number that differs when a VM is made, its disk or seed is
// written, or its program is started or ended.
func effects(t *testing.T, state string) conformance.Effects {
	store, err := record.Open(state)
	if err != nil {
		t.Fatal(err)
	}
	return func(context.Context) (int, error) {
		vmids, err := store.List()
		if err != nil {
			return 0, err
		}
		var seen []byte
		for _, vmid := range vmids {
			v, err := store.Load(vmid)
			if err != nil {
				return 0, err
			}
			seen = fmt.Appendf(seen, "%d %s %+v\n", vmid, v.Owner, v.Run)
			for _, name := range []string{"disk.qcow2", "seed.iso"} {
				var st syscall.Stat_t
				err := syscall.Stat(store.Path(vmid, name), &st)
				seen = fmt.Appendf(seen, "%s %d %v %v\n", name, st.Ino, st.Mtim, err)
			}
		}
		return int(crc32.ChecksumIEEE(seen)), nil
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	tests := map[string]string{
		"":           `{}`,
		"vmid_first": `{"vmid_first": 5, "vmid_last": 4}`,
		"uid_base":   `{"uid_base": 10}`,
		"templates":  `{"templates": ["images/x"]}`,
		"unknown":    `{"nope": 1}`,
	}
	for want, text := range tests {
		t.Run(want, func(t *testing.T) {
			full := map[string]any{}
			for _, a := range schema().Block.Attributes {
				full[a.Name] = a.Default
			}
			if err := json.Unmarshal([]byte(text), &full); err != nil {
				t.Fatal(err)
			}
			raw, err := json.Marshal(full)
			if err != nil {
				t.Fatal(err)
			}
			problems := validate(t.Context(), raw)
			switch {
			case want == "" && len(problems) > 0, want != "" && len(problems) == 0:
				t.Errorf("problems = %+v", problems)
			case want != "" && want != "unknown" && fmt.Sprint(problems[0].Path[0]) != want:
				t.Errorf("problem points at %v, want %s", problems[0].Path, want)
			}
		})
	}
}
