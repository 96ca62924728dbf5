package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// fakeGuest answers in the place of a boot sector, which cannot.
type fakeGuest struct {
	mu sync.Mutex
	// mu guards:
	settled int // times it said that it can be frozen
	assumed []channel.Identity
	refuse  error // of Assume
	ready   func(ctx context.Context) error
}

func newFakeGuest() *fakeGuest { return &fakeGuest{} }

type fakeChannel struct {
	*fakeGuest
	net.Conn
}

func (g *fakeGuest) greet(conn net.Conn) guest { return fakeChannel{g, conn} }

func (g *fakeGuest) State(context.Context) (channel.State, error) {
	return channel.State{Phase: channel.PhaseServing}, nil
}

func (g *fakeGuest) AwaitReady(ctx context.Context) error {
	g.mu.Lock()
	g.settled++
	ready := g.ready
	g.mu.Unlock()
	if ready != nil {
		return ready(ctx)
	}
	time.Sleep(300 * time.Millisecond) // a few ticks
	return nil
}

func (g *fakeGuest) Assume(_ context.Context, id channel.Identity) (channel.Assumed, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.assumed = append(g.assumed, id)
	return channel.Assumed{}, g.refuse
}

func testWarmRequest() hypervisor.WarmRequest {
	return hypervisor.WarmRequest{Template: "tiny", Cores: 1, MemoryBytes: 64 << 20}
}

func newMemoryLab(t *testing.T) *lab {
	l := newLab(t, testhost.Count)
	l.config.MemoryTemplates = Manual
	return l
}

func (l *lab) warm(d *Driver) hypervisor.Template {
	l.t.Helper()
	tpl, err := d.WarmTemplate(testContext(l.t), testWarmRequest(), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return tpl
}

// counter reads what the guest has counted.
func (l *lab) counter(d *Driver, vmid uint32) uint32 {
	l.t.Helper()
	var out string
	err := d.ask(testContext(l.t), vmid, commandTimeout, func(ctx context.Context, c *qmp.Client) error {
		return c.Execute(ctx, "human-monitor-command", map[string]any{
			"command-line": fmt.Sprintf("xp /1wx %#x", testhost.CounterAt),
		}, &out)
	})
	if err != nil {
		l.t.Fatal(err)
	}
	_, text, _ := strings.Cut(strings.TrimSpace(out), ": ")
	n, err := strconv.ParseUint(text, 0, 32)
	if err != nil {
		l.t.Fatalf("%q: %v", out, err)
	}
	return uint32(n)
}

func (l *lab) keys(d *Driver) []string {
	l.t.Helper()
	keys, err := d.memory.List()
	if err != nil {
		l.t.Fatal(err)
	}
	return keys
}

// frozen is what a template counted before it was frozen, as its file has it.
func (l *lab) frozen(d *Driver) (ram []byte, count uint32) {
	l.t.Helper()
	ram, err := os.ReadFile(d.memory.Path(l.keys(d)[0], memory.RAMName))
	if err != nil {
		l.t.Fatal(err)
	}
	return ram, uint32(ram[testhost.CounterAt]) | uint32(ram[testhost.CounterAt+1])<<8
}

// hasCounted waits until the guest that is being frozen has counted to 5.
func (l *lab) hasCounted(ctx context.Context) error {
	for {
		drafts, err := filepath.Glob(filepath.Join(l.state, "memory", ".new-*", memory.RAMName))
		if err != nil || len(drafts) != 1 {
			return fmt.Errorf("drafts: %v, %w", drafts, err)
		}
		f, err := os.Open(drafts[0])
		if err != nil {
			return err
		}
		var b [1]byte
		_, err = f.ReadAt(b[:], testhost.CounterAt)
		if err := errors.Join(err, f.Close(), ctx.Err()); err != nil {
			return err
		}
		if b[0] >= 5 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (l *lab) builders() []procfs.Identity {
	l.t.Helper()
	found, err := procfs.Find(l.config.UIDBase + l.config.VMIDLast + 1)
	if err != nil {
		l.t.Fatal(err)
	}
	return found
}

func TestStartFromMemory(t *testing.T) {
	l := newMemoryLab(t)
	d := l.driver()
	l.guest.ready = l.hasCounted
	tpl := l.warm(d)
	if len(tpl.Memory) != 1 || tpl.Memory[0].Cores != 1 || tpl.Memory[0].MemoryBytes != 64<<20 || tpl.Memory[0].DiskBytes == 0 {
		t.Fatalf("memory = %+v", tpl.Memory)
	}
	ram, count := l.frozen(d)
	if count < 3 {
		t.Fatalf("the template has counted to %d", count)
	}
	l.create(d)
	if pids := l.builders(); len(pids) > 0 {
		t.Errorf("programs of the builder are left: %v", pids)
	}
	vm := l.power(d, hypervisor.PowerOn, 0)
	if want := (hypervisor.Start{Way: hypervisor.WayMemory}); vm.Power != hypervisor.PowerOn || vm.Start != want {
		t.Fatalf("vm = %+v", vm)
	}
	time.Sleep(200 * time.Millisecond)
	if now := l.counter(d, testVMID); now < count || now > count+200 {
		t.Errorf("the guest has counted to %d, the template to %d", now, count)
	}
	req := testRequest()
	id := l.guest.assumed[0]
	if id.MAC != req.NIC.MAC || len(id.Entropy) < channel.MinEntropy || len(l.guest.assumed) != 1 {
		t.Errorf("identity = %+v", id)
	}
	if d := cmp.Diff(channel.Seed(req.Seed), id.Seed); d != "" {
		t.Error(d)
	}
	if now, _ := l.frozen(d); !bytes.Equal(now, ram) {
		t.Error("the clone has changed the memory of its template")
	}
	l.power(d, hypervisor.PowerOff, 0)
	vm = l.power(d, hypervisor.PowerOn, 0)
	if vm.Start.Way != hypervisor.WayBoot || !strings.Contains(vm.Start.Reason, "has run before") {
		t.Errorf("second start = %+v", vm.Start)
	}
	time.Sleep(time.Second)
	l.destroyAndCheck(d)
	if len(l.keys(d)) != 1 {
		t.Error("the template went with its vm")
	}
}

// Nobody but root may write what VMs start from, and only its disk is read by them.
func TestModesOfMemoryTemplates(t *testing.T) {
	l := newMemoryLab(t)
	d := l.driver()
	l.warm(d)
	want := map[string]fs.FileMode{
		".": fs.ModeDir | 0o711, "ram": 0o400, "state": 0o400, "disk.qcow2": 0o444, "manifest.json": 0o400,
	}
	got := map[string]fs.FileMode{}
	dir := filepath.Join(l.state, "memory", l.keys(d)[0])
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); !ok || sys.Uid != 0 || sys.Gid != 0 {
			t.Errorf("%s is not root's", path)
		}
		name, err := filepath.Rel(dir, path)
		got[name] = st.Mode()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Whatever is wrong with its memory template, a VM boots and says why.
func TestFallback(t *testing.T) {
	tests := map[string]struct {
		spoil  func(t *testing.T, l *lab, key string)
		reason string
	}{
		"qemu upgraded": {func(t *testing.T, l *lab, _ string) {
			now := time.Now()
			if err := os.Chtimes(l.config.QEMUBinary, now, now); err != nil {
				t.Fatal(err)
			}
		}, "QEMU has been changed"},
		"switched off": {func(_ *testing.T, l *lab, _ string) { l.config.MemoryTemplates = Off }, "switched off"},
		"other setup":  {func(_ *testing.T, l *lab, _ string) { l.config.TBMiB = 48 }, "set up in another way"},
		"memory gone": {func(t *testing.T, l *lab, key string) {
			if err := os.Remove(filepath.Join(l.state, "memory", key, memory.RAMName)); err != nil {
				t.Fatal(err)
			}
		}, "gone or damaged"},
		"state damaged": {func(t *testing.T, l *lab, key string) {
			if err := os.Truncate(filepath.Join(l.state, "memory", key, memory.StateName), 1000); err != nil {
				t.Fatal(err)
			}
		}, "load memory template"},
		"no identity": {func(_ *testing.T, l *lab, _ string) {
			l.guest.refuse = fault.New(fault.Unavailable, "no runner")
		}, "no runner"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newMemoryLab(t)
			l.config.QEMUBinary = wrapped(t, "qemu-system-x86_64")
			d := l.driver()
			l.warm(d)
			l.create(d)
			tt.spoil(t, l, l.keys(d)[0])
			d = l.driver()
			vm := l.power(d, hypervisor.PowerOn, 0)
			if vm.Power != hypervisor.PowerOn || vm.Start.Way != hypervisor.WayBoot || !strings.Contains(vm.Start.Reason, tt.reason) {
				t.Errorf("vm = %+v", vm)
			}
			if pids := l.pids(); len(pids) != 1 {
				t.Errorf("programs = %v", pids)
			}
			v, err := d.store.Load(testVMID)
			if err != nil || v.Memory != nil {
				t.Errorf("record = %+v, %v", v, err)
			}
			l.destroyAndCheck(d)
		})
	}
}

// wrapped gives a program that is QEMU and can be changed. A copy of its own would
// not find its modules.
func wrapped(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "agentlab-qemu-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	out := filepath.Join(dir, program)
	err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(out, []byte("#!/bin/sh\nexec "+path+" \"$@\"\n"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBuildConvergesAfterKill(t *testing.T) {
	for _, step := range []string{"begun", "started", "settled", "saved", "ended", "committed"} {
		t.Run(step, func(t *testing.T) {
			l := newMemoryLab(t)
			l.killedIn("warm", step)
			d := l.driver()
			if whole := len(l.keys(d)); whole != 0 && step != "committed" {
				t.Errorf("%d templates after a kill", whole)
			}
			if err := d.Tidy(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if pids := l.builders(); len(pids) > 0 {
				t.Errorf("programs of the builder are left: %v", pids)
			}
			if left, err := filepath.Glob(filepath.Join(l.state, "memory", ".new-*")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			l.warm(d)
			l.create(d)
			if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayMemory {
				t.Errorf("start = %+v", vm.Start)
			}
			l.destroyAndCheck(d)
		})
	}
}

func TestStartFromMemoryConvergesAfterKill(t *testing.T) {
	l := newMemoryLab(t)
	l.warm(l.driver())
	for _, step := range []string{"announced", "spawned", "answered", "loaded", "naming", "named", "recorded"} {
		t.Run(step, func(t *testing.T) {
			l.create(l.driver())
			l.killedIn("start", step)
			d := l.driver()
			if vm, err := d.GetVM(testContext(t), testRef()); err != nil || (vm.Power == hypervisor.PowerOff) == (step == "recorded") {
				t.Errorf("vm = %+v, %v", vm, err)
			}
			before := l.pids()
			if vm := l.power(d, hypervisor.PowerOn, 0); vm.Power != hypervisor.PowerOn || vm.Start.Way != hypervisor.WayMemory {
				t.Errorf("vm = %+v", vm)
			}
			after := l.pids()
			if len(after) != 1 {
				t.Errorf("programs = %v, want one", after)
			}
			// Once it may have become somebody it must not be ended.
			kept := cmp.Equal(before, after)
			if named := step == "naming" || step == "named" || step == "recorded"; named != kept {
				t.Errorf("programs before %v, after %v", before, after)
			}
			l.destroyAndCheck(d)
		})
	}
}

// A clone's disk was written by the guest of a start that did not come to its end.
func TestCreateAfterKilledStartFromMemory(t *testing.T) {
	l := newMemoryLab(t)
	l.warm(l.driver())
	l.create(l.driver())
	l.killedIn("start", "naming")
	d := l.driver()
	disk := d.store.Path(testVMID, diskName)
	if err := os.Truncate(disk, 64<<20); err != nil { // what a guest might write
		t.Fatal(err)
	}
	l.create(d)
	l.power(d, hypervisor.PowerOn, 0)
	if st, err := os.Stat(disk); err != nil || st.Size() == 64<<20 {
		t.Errorf("the disk is the same, %v", err)
	}
	l.destroyAndCheck(d)
}

func TestKilledFallbackConverges(t *testing.T) {
	l := newMemoryLab(t)
	d := l.driver()
	l.warm(d)
	l.create(d)
	if err := os.Truncate(d.memory.Path(l.keys(d)[0], memory.StateName), 1000); err != nil {
		t.Fatal(err)
	}
	l.killedIn("start", "forsaken")
	if vm := l.power(l.driver(), hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayBoot {
		t.Errorf("vm = %+v", vm)
	}
	l.destroyAndCheck(d)
}

// Two plugins, one ending and one new, asked for the same.
func TestOneBuilderPerKey(t *testing.T) {
	l := newMemoryLab(t)
	var wg sync.WaitGroup
	for range 2 {
		d := l.driver()
		wg.Go(func() {
			if _, err := d.WarmTemplate(testContext(t), testWarmRequest(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if l.guest.settled != 1 {
		t.Errorf("%d builds", l.guest.settled)
	}
}

// A throw-away daemon leaves its template to the next one.
func TestTemplatesAreShared(t *testing.T) {
	l := newMemoryLab(t)
	l.config.MemoryCache = filepath.Join(l.state, "cache")
	l.warm(l.driver())
	if err := os.RemoveAll(filepath.Join(l.state, "memory")); err != nil {
		t.Fatal(err)
	}
	d := l.driver()
	l.create(d)
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayMemory {
		t.Errorf("start = %+v", vm.Start)
	}
	l.destroyAndCheck(d)
	if err := d.memory.Remove(l.keys(d)[0]); err != nil {
		t.Fatal(err)
	}
	l.warm(d)
	if l.guest.settled != 1 {
		t.Errorf("%d builds", l.guest.settled)
	}
}

func TestBuildEndsWithItsCaller(t *testing.T) {
	l := newMemoryLab(t)
	l.guest.ready = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	d := l.driver()
	ctx, cancel := context.WithTimeout(testContext(t), 2*time.Second)
	defer cancel()
	if _, err := d.WarmTemplate(ctx, testWarmRequest(), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v", err)
	}
	left, err := os.ReadDir(filepath.Join(l.state, "memory"))
	if err != nil || len(left) != 1 || left[0].Name() != ".lock" {
		t.Errorf("left: %v, %v", left, err)
	}
	if pids := l.builders(); len(pids) > 0 {
		t.Errorf("programs of the builder are left: %v", pids)
	}
}

func TestTemplateIsMadeInTheBackground(t *testing.T) {
	l := newMemoryLab(t)
	l.config.MemoryTemplates = Auto
	d := l.driver()
	l.create(d)
	vm := l.power(d, hypervisor.PowerOn, 0)
	if vm.Start.Way != hypervisor.WayBoot || !strings.Contains(vm.Start.Reason, "no memory template") {
		t.Errorf("start = %+v", vm.Start)
	}
	d.warming.running.Wait()
	l.destroyAndCheck(d)
	l.create(d)
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayMemory {
		t.Errorf("start = %+v", vm.Start)
	}
	l.destroyAndCheck(d)
}

// What failed is not tried again with each VM, and is told.
func TestFailedBuildIsRemembered(t *testing.T) {
	l := newMemoryLab(t)
	l.config.MemoryTemplates = Auto
	l.guest.ready = func(context.Context) error { return fault.New(fault.Timeout, "it never settles") }
	d := l.driver()
	for range 2 {
		l.create(d)
		l.power(d, hypervisor.PowerOn, 0)
		d.warming.running.Wait()
		l.destroyAndCheck(d)
	}
	if l.guest.settled != 1 {
		t.Errorf("%d builds", l.guest.settled)
	}
	l.create(d)
	if vm := l.power(d, hypervisor.PowerOn, 0); !strings.Contains(vm.Start.Reason, "it never settles") {
		t.Errorf("start = %+v", vm.Start)
	}
	if f := d.memoryFinding(); !strings.Contains(f.Message, "it never settles") || f.Fix == "" {
		t.Errorf("finding = %+v", f)
	}
	l.guest.ready = nil
	l.warm(d)
	if f := d.memoryFinding(); f.Fix != "" {
		t.Errorf("finding = %+v", f)
	}
}

func TestCollect(t *testing.T) {
	old := time.Now().Add(-keepUnused - time.Hour)
	tests := map[string]struct {
		spoil func(l *lab, d *Driver, key string) error
		keep  bool
	}{
		"fresh": {func(*lab, *Driver, string) error { return nil }, true},
		"unused": {func(_ *lab, d *Driver, key string) error {
			return os.Chtimes(d.memory.Path(key, "manifest.json"), old, old)
		}, false},
		"unused and needed": {func(l *lab, d *Driver, key string) error {
			l.create(d)
			return os.Chtimes(d.memory.Path(key, "manifest.json"), old, old)
		}, true},
		"unused and perhaps needed": {func(l *lab, d *Driver, key string) error {
			l.create(d)
			return errors.Join(
				os.Chtimes(d.memory.Path(key, "manifest.json"), old, old),
				os.WriteFile(d.store.Path(testVMID, "vm.json"), []byte("{"), 0o600),
			)
		}, true},
		"image rebuilt": {func(l *lab, _ *Driver, _ string) error {
			now := time.Now()
			return os.Chtimes(filepath.Join(l.config.TemplateDir, "tiny-1", "root.qcow2"), now, now)
		}, false},
		"image gone": {func(l *lab, _ *Driver, _ string) error {
			return os.RemoveAll(filepath.Join(l.config.TemplateDir, "tiny-1"))
		}, false},
		"qemu gone":       {func(_ *lab, d *Driver, _ string) error { d.cfg.QEMUBinary = "/nonexistent/qemu"; return nil }, true},
		"manifest broken": {func(_ *lab, d *Driver, key string) error { return os.Truncate(d.memory.Path(key, "manifest.json"), 9) }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newMemoryLab(t)
			d := l.driver()
			l.warm(d)
			if err := tt.spoil(l, d, l.keys(d)[0]); err != nil {
				t.Fatal(err)
			}
			d.collect(testContext(t))
			if kept := len(l.keys(d)) == 1; kept != tt.keep {
				t.Errorf("kept = %v", kept)
			}
		})
	}
}
