package scheduler

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// bench is a store, a world with guests, and one life of the daemon after the
// other.
type bench struct {
	*Scheduler
	t         testing.TB
	store     *state.Store
	world     *world
	crash     *crasher
	task      string // how guests behave
	denied    atomic.Int64
	timing    Timing
	cleanRepo func(ctx context.Context, id string) error // may be nil
	adapt     func(*Config)                              // the last word; may be nil

	stop   func() // of the present life
	lives  sync.WaitGroup
	guests func()
}

// inBubble runs f with a bench whose clock jumps whenever all wait.
func inBubble(t *testing.T, task string, f func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, filepath.Join(fastDir(t), "agentlab.db"), task)
		defer b.close()
		f(b)
	})
}

func newBench(t testing.TB, path, task string) *bench {
	store, err := state.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: store, world: newWorld(), task: task}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.live(ctx)
	}()
	b.guests = func() { cancel(); <-done }
	return b
}

// start begins a life that ends at the given effect; negative is never.
func (b *bench) start(effect int) {
	ctx, cancel := context.WithCancel(context.Background())
	b.crash = &crasher{left: effect, kill: cancel}
	d := &drivers{b.world, b.crash}
	cfg := Config{
		StartsAtOnce: 3,
		Store:        mortalStore{b.store, b.crash}, Hypervisor: d, Network: netDriver{d}, HostUUID: "host", Bridge: "vmbr1",
		Subnet: netip.MustParsePrefix("10.77.0.0/16"), HostAddress: netip.MustParseAddr("10.77.0.1"), GuestURL: "http://10.77.0.1:8844",
		RenderSeed: func(in SeedInput) (hypervisor.Seed, error) {
			return hypervisor.Seed{UserData: []byte(in.Token.Reveal())}, nil
		},
		CleanRepo: b.cleanRepo, Timing: b.timing,
	}
	if b.adapt != nil {
		b.adapt(&cfg)
	}
	b.Scheduler = New(cfg)
	s := b.Scheduler
	b.lives.Go(func() { _ = s.Run(ctx) })
	b.stop = func() { cancel(); b.lives.Wait() }
}

func (b *bench) close() {
	if b.stop != nil {
		b.stop()
	}
	b.guests()
	if err := b.store.Close(); err != nil {
		b.t.Error(err)
	}
}

func spec(onEnd string) lab.Spec {
	return lab.Spec{
		Template: "9000", Cores: 1, MemoryMB: 256, NetworkMode: "nat", SSHUser: "agent", OnJobEnd: onEnd,
		TTL: 10 * time.Minute, ProvisionTimeout: 5 * time.Minute,
	}
}

// runJob submits a job.
func (b *bench) submitJob(onEnd string) lab.Job {
	b.t.Helper()
	_, _, job, err := b.RunJob(context.Background(), JobRequest{Profile: "p", Task: b.task, Spec: spec(onEnd)})
	if err != nil {
		b.t.Fatal(err)
	}
	return job
}

func (b *bench) submitSandbox(name string) lab.Sandbox {
	b.t.Helper()
	_, sb, err := b.CreateSandbox(context.Background(), SandboxRequest{Name: name, Profile: "p", Spec: spec("destroy"), Keep: true})
	if err != nil {
		b.t.Fatal(err)
	}
	return sb
}

// settle lets time pass until no operation is open, an hour at most.
func (b *bench) settle() {
	b.t.Helper()
	for range 720 {
		time.Sleep(5 * time.Second)
		synctest.Wait()
		open, err := b.store.Operations(context.Background(), state.OperationFilter{Open: true})
		if err != nil {
			b.t.Fatal(err)
		}
		if len(open) == 0 {
			return
		}
	}
	b.t.Fatalf("operations are still open after an hour: %s", b.history())
}

func (b *bench) job(id string) lab.Job {
	b.t.Helper()
	j, err := b.store.Job(context.Background(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return j
}

func (b *bench) sandbox(id string) lab.Sandbox {
	b.t.Helper()
	sb, err := b.store.Sandbox(context.Background(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return sb
}

func (b *bench) operations(f state.OperationFilter) []lab.Operation {
	b.t.Helper()
	ops, err := b.store.Operations(context.Background(), f)
	if err != nil {
		b.t.Fatal(err)
	}
	return ops
}

// history is what happened, for failure messages.
func (b *bench) history() string {
	events, _ := b.store.Events(context.Background(), state.EventFilter{Limit: 60, Newest: true})
	out := "\n"
	for _, e := range events {
		out += e.At.Format("15:04:05.000 ") + e.Type + " " + e.Fields["kind"] + " " + e.Fields["step"] + " " + e.Fields["to"] + " " + e.Message + "\n"
	}
	return out
}

// fastDir is a directory for tests that commit thousands of times, in memory
// where the machine has such a file system: they test order, not the disk.
func fastDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "agentlab-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
