package accel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/sdk/fault"
)

var (
	old   = Version{Major: 7, Minor: 2}
	newer = Version{Major: 10, Minor: 0}

	kvmPlain = machine.Accel{Name: KVM, CPU: "host,-vmx,-svm"}
	kvmMild  = machine.Accel{Name: KVM, CPU: "host,-arch-capabilities,-vmx,-svm"}
	tcgOld   = machine.Accel{Name: TCG, CPU: "qemu64,-svm,-cx16"}
	tcgNew   = machine.Accel{Name: TCG, CPU: "qemu64,-svm"}
)

// openDevice stands in for a /dev/kvm that every user may open.
func openDevice(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "kvm")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func speed(v float64, err error) func(context.Context, string) (float64, error) {
	return func(context.Context, string) (float64, error) { return v, err }
}

func TestWays(t *testing.T) {
	tests := map[string]struct {
		want    string
		version Version
		measure func(context.Context, string) (float64, error)
		ways    []machine.Accel
		class   fault.Class
	}{
		"fast":             {Auto, old, speed(900e6, nil), []machine.Accel{kvmPlain, kvmMild, tcgOld}, ""},
		"crawls":           {Auto, old, speed(2.3e6, nil), []machine.Accel{tcgOld}, ""},
		"newer translator": {Auto, newer, speed(2.3e6, nil), []machine.Accel{tcgNew}, ""},
		"no device":        {Auto, old, speed(0, os.ErrNotExist), []machine.Accel{tcgOld}, ""},
		"asked for tcg":    {TCG, old, speed(900e6, nil), []machine.Accel{tcgOld}, ""},
		"asked for kvm":    {KVM, old, speed(2.3e6, nil), []machine.Accel{kvmPlain, kvmMild}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := &Chooser{Want: tt.want, State: t.TempDir(), Device: openDevice(t), Measure: tt.measure, Log: hclog.NewNullLogger()}
			ways, err := c.Ways(t.Context(), tt.version)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.ways, ways); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestVerdictIsRemembered(t *testing.T) {
	state, device, calls := t.TempDir(), openDevice(t), 0
	open := func() *Chooser {
		return &Chooser{Want: Auto, State: state, Device: device, Log: hclog.NewNullLogger(), Measure: func(context.Context, string) (float64, error) {
			calls++
			return 900e6, nil
		}}
	}
	for range 2 {
		c := open()
		for range 2 {
			if _, err := c.Ways(t.Context(), old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if calls != 1 {
		t.Errorf("probed %d times, want once", calls)
	}
	open().Failed(kvmPlain, "before any verdict")
	c := open()
	if _, err := c.Ways(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	c.Failed(kvmPlain, "unknown MSR")
	ways, err := open().Ways(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]machine.Accel{kvmMild, tcgOld}, ways); diff != "" {
		t.Error(diff)
	}
	if _, err := open().Ways(t.Context(), newer); err != nil || calls != 2 {
		t.Errorf("another QEMU: probed %d times, want twice, %v", calls, err)
	}
}

func TestDeviceGroups(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files away")
	}
	device := openDevice(t)
	for _, tt := range []struct {
		mode os.FileMode
		gid  int
		want []uint32
		ok   bool
	}{
		{0o666, 0, nil, true}, {0o660, 108, []uint32{108}, true}, {0o660, 0, nil, false}, {0o600, 108, nil, false},
	} {
		if err := errors.Join(os.Chown(device, 0, tt.gid), os.Chmod(device, tt.mode)); err != nil {
			t.Fatal(err)
		}
		got, err := DeviceGroups(device)
		if diff := cmp.Diff(tt.want, got); diff != "" || (err == nil) != tt.ok {
			t.Errorf("mode %o group %d: %v %v", tt.mode, tt.gid, got, err)
		}
	}
}

// The speed itself depends on the host; that the loop ends and halts does not.
func TestMeasureRealDevice(t *testing.T) {
	if _, err := os.Stat(Device); err != nil {
		t.Skip("needs " + Device)
	}
	begun := time.Now()
	got, err := Measure(t.Context(), Device)
	t.Logf("%.1f million instructions per second, %v, took %s", got/1e6, err, time.Since(begun))
	if err == nil && got <= 0 {
		t.Errorf("speed = %f", got)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("probe took %s", took)
	}
}

func TestMeasureEndsWithItsContext(t *testing.T) {
	if f, err := os.OpenFile(Device, os.O_RDWR, 0); err != nil {
		t.Skip("needs " + Device)
	} else {
		_ = f.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Measure(ctx, Device); err == nil {
		t.Error("a cancelled probe gave a result")
	}
}
