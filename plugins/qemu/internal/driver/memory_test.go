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
	settled   int // times it said that it can be frozen
	assumed   []channel.Identity
	refuse    error // of Assume
	went      int   // times it was let go
	stays     error // of Go
	assume    func(ctx context.Context) error
	ready     func(ctx context.Context) error
	rehearsed int
	rehearse  func(ctx context.Context) error
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

func (g *fakeGuest) Assume(ctx context.Context, id channel.Identity) (channel.Assumed, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.assumed = append(g.assumed, id)
	if g.assume != nil {
		return channel.Assumed{}, g.assume(ctx)
	}
	return channel.Assumed{}, g.refuse
}

func (g *fakeGuest) Rehearse(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rehearsed++
	if g.rehearse != nil {
		return g.rehearse(ctx)
	}
	return nil
}

func (g *fakeGuest) Go(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.went++
	return g.stays
}

func testWarmRequest() hypervisor.WarmRequest {
	return hypervisor.WarmRequest{Template: "tiny", Cores: 1, MemoryBytes: 64 << 20}
}

func newMemoryLab(t *testing.T) *lab {
	l := newLab(t, testhost.Count)
	testhost.KernelTemplate(t, l.config.TemplateDir, testhost.Count)
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
	t.Parallel()
	tests := map[string]struct {
		spoil  func(t *testing.T, l *lab, d *Driver)
		reason string
	}{
		"switched off": {func(_ *testing.T, l *lab, _ *Driver) { l.config.MemoryTemplates = Off }, "switched off"},
		"other setup":  {func(_ *testing.T, l *lab, _ *Driver) { l.config.TBMiB = 48 }, "set up in another way"},
		"memory gone": {func(t *testing.T, l *lab, d *Driver) {
			if err := os.Remove(d.memory.Path(l.keys(d)[0], memory.RAMName)); err != nil {
				t.Fatal(err)
			}
		}, "gone or damaged"},
		"state damaged": {func(_ *testing.T, l *lab, d *Driver) { l.damage(d) }, "load memory template"},
		"no identity": {func(_ *testing.T, l *lab, _ *Driver) {
			l.guest.refuse = fault.New(fault.Unavailable, "no runner")
		}, "no runner"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newWarmLab(t)
			d := l.driver()
			l.create(d)
			tt.spoil(t, l, d)
			l.fallsBack(tt.reason)
		})
	}
	t.Run("qemu upgraded", func(t *testing.T) {
		l := newMemoryLab(t)
		l.config.QEMUBinary = wrapped(t, "qemu-system-x86_64")
		d := l.driver()
		l.warm(d)
		l.create(d)
		now := time.Now()
		if err := os.Chtimes(l.config.QEMUBinary, now, now); err != nil {
			t.Fatal(err)
		}
		l.fallsBack("QEMU has been changed")
	})
}

// fallsBack wants the VM to boot for this reason.
func (l *lab) fallsBack(reason string) {
	l.t.Helper()
	d := l.driver()
	vm := l.power(d, hypervisor.PowerOn, 0)
	if vm.Power != hypervisor.PowerOn || vm.Start.Way != hypervisor.WayBoot || !strings.Contains(vm.Start.Reason, reason) {
		l.t.Errorf("vm = %+v", vm)
	}
	if pids := l.pids(); len(pids) != 1 {
		l.t.Errorf("programs = %v", pids)
	}
	v, err := d.store.Load(testVMID)
	if err != nil || v.Memory != nil {
		l.t.Errorf("record = %+v, %v", v, err)
	}
	l.destroyAndCheck(d)
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
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	testhost.Script(t, out, "exec "+path+" \"$@\"")
	return out
}

func TestStartFromMemoryConvergesAfterKill(t *testing.T) {
	l := newWarmLab(t)
	for _, step := range []string{"announced", "spawned", "answered", "loaded", "named", "naming", "gone", "recorded"} {
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
			// Once it may use its identity it must not be ended, nor get another.
			kept := cmp.Equal(before, after)
			if gone := step == "naming" || step == "gone" || step == "recorded"; gone != kept || gone != (len(l.guest.assumed) == 0) {
				t.Errorf("programs before %v, after %v, %d identities given", before, after, len(l.guest.assumed))
			}
			l.guest.assumed = nil
			l.destroyAndCheck(d)
		})
	}
}

// A clone's disk was written by the guest of a start that did not come to its end.
func TestCreateAfterKilledStartFromMemory(t *testing.T) {
	l := newWarmLab(t)
	l.create(l.driver())
	l.killedIn("start", "named")
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
	l := newWarmLab(t)
	d := l.driver()
	l.create(d)
	l.damage(d)
	l.killedIn("start", "forsaken")
	if vm := l.power(l.driver(), hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayBoot {
		t.Errorf("vm = %+v", vm)
	}
	l.destroyAndCheck(d)
}
