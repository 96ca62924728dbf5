package accel

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Values of the accel setting.
const (
	Auto = "auto"
	KVM  = "kvm"
	TCG  = "tcg"
)

const (
	// slowest is the speed in instructions per second below which the
	// translator is the better choice.
	slowest    = 50e6
	memoryName = "accel.json"
)

// Chooser picks the ways to execute guests. It is safe for concurrent use.
type Chooser struct {
	Want    string // Auto, KVM or TCG
	State   string // folder that remembers the verdict
	Device  string // /dev/kvm
	Measure func(ctx context.Context, device string) (float64, error)
	Log     hclog.Logger

	mu sync.Mutex
	// mu guards:
	verdict *Verdict // nil until something was measured
	warned  string
}

// Verdict is what the probe found out.
type Verdict struct {
	Key    string  `json:"key"` // boot, kernel and QEMU it holds for
	Speed  float64 `json:"speed,omitempty"`
	Reason string  `json:"reason,omitempty"` // why KVM is not used, "" if it is
	Fix    string  `json:"fix,omitempty"`    // what to do about Reason
	// Broken lists the -cpu arguments with which QEMU failed under KVM while
	// another way worked.
	Broken []string `json:"broken,omitempty"`
}

// Version of QEMU, as far as it matters here.
type Version struct{ Major, Minor int }

// String is the version as QEMU writes it.
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Ways gives the ways to try in order; there is at least one.
func (c *Chooser) Ways(ctx context.Context, v Version) ([]machine.Accel, error) {
	tcg := machine.Accel{Name: TCG, CPU: tcgCPU(v)}
	if c.Want == TCG {
		return []machine.Accel{tcg}, nil
	}
	verdict, err := c.Verdict(ctx, v)
	if err != nil {
		return nil, err
	}
	var ways []machine.Accel
	if verdict.Reason == "" || c.Want == KVM {
		for _, cpu := range []string{"host,-vmx,-svm", "host,-arch-capabilities,-vmx,-svm"} {
			if !slices.Contains(verdict.Broken, cpu) {
				ways = append(ways, machine.Accel{Name: KVM, CPU: cpu})
			}
		}
	}
	if c.Want == KVM {
		if len(ways) == 0 {
			return nil, fault.New(fault.Precondition, "kvm does not work on this host").
				WithHint("set accel to auto, or remove accel.json from the plugin's state folder and try again")
		}
		return ways, nil
	}
	return append(ways, tcg), nil
}

// tcgCPU leaves out nested virtualisation, and an instruction that QEMU before
// 10 translates wrongly: kernels from 6.12 panic on it.
func tcgCPU(v Version) string {
	if v.Major < 10 {
		return "qemu64,-svm,-cx16"
	}
	return "qemu64,-svm"
}

// Verdict probes KVM, or recalls the probe of this boot.
func (c *Chooser) Verdict(ctx context.Context, v Version) (Verdict, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key, err := key(v)
	if err != nil {
		return Verdict{}, err
	}
	if c.verdict != nil && c.verdict.Key == key {
		return *c.verdict, nil
	}
	if found, ok := c.recall(key); ok {
		c.verdict = &found
		return found, nil
	}
	found := Verdict{Key: key}
	// The mode is looked at last: it is not worth to be mended where KVM crawls.
	if found.Speed, err = c.Measure(ctx, c.Device); err == nil && found.Speed >= slowest {
		_, err = DeviceGroups(c.Device)
	}
	switch {
	case ctx.Err() != nil:
		return Verdict{}, fault.New(fault.Timeout, "probe kvm: %w", ctx.Err())
	case err != nil:
		found.Reason, found.Fix = err.Error(), remedy(err, c.Device, cpuFlags())
	case found.Speed < slowest:
		found.Reason = fmt.Sprintf("guests run %.1f million instructions per second under it, less than %.0f",
			found.Speed/1e6, float64(slowest/1e6))
		found.Fix = remedy(nil, c.Device, cpuFlags())
	}
	c.warn(found.Reason)
	if err != nil {
		// A module may be loaded or a mode set at any time: look again then.
		return found, nil
	}
	c.verdict = &found
	return found, c.remember()
}

// warn tells once per reason. Caller holds mu.
func (c *Chooser) warn(reason string) {
	if reason != "" && reason != c.warned && c.Want == Auto {
		c.Log.Warn("kvm is not usable, guests are emulated and slower", "err", reason)
	}
	c.warned = reason
}

// Failed notes that QEMU did not start with this way while a later one worked,
// so that the next start does not try it again.
func (c *Chooser) Failed(way machine.Accel, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.verdict == nil || way.Name != KVM || slices.Contains(c.verdict.Broken, way.CPU) {
		return
	}
	c.Log.Warn("qemu does not start with this cpu under kvm", "err", way.CPU+": "+reason)
	c.verdict.Broken = append(c.verdict.Broken, way.CPU)
	if err := c.remember(); err != nil {
		c.Log.Warn("verdict on kvm was not stored", "err", err)
	}
}

func (c *Chooser) recall(key string) (Verdict, bool) {
	raw, err := os.ReadFile(filepath.Join(c.State, memoryName))
	if err != nil {
		return Verdict{}, false
	}
	var v Verdict
	return v, json.Unmarshal(raw, &v) == nil && v.Key == key
}

func (c *Chooser) remember() error {
	raw, err := json.Marshal(c.verdict)
	if err != nil {
		return fault.New(fault.Internal, "encode verdict: %w", err)
	}
	return record.WriteFile(filepath.Join(c.State, memoryName), raw, 0o600, os.Getuid())
}

func key(v Version) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fault.New(fault.Internal, "read boot id: %w", err)
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return "", fault.New(fault.Internal, "read kernel version: %w", err)
	}
	return fmt.Sprintf("%.36s %s qemu %d.%d", boot, unix.ByteSliceToString(uts.Release[:]), v.Major, v.Minor), nil
}
