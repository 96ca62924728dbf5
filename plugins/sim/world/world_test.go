package world_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

func open(t *testing.T, dir string) *world.World {
	t.Helper()
	w, err := world.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// plantTwo makes two machines in one effect, so that half of it would show.
func plantTwo(ctx context.Context, w *world.World, first uint32) error {
	return w.Change(ctx, func(tx *world.Tx) error {
		tx.Record(world.Effect{Op: "test.two", Subject: fmt.Sprint(first)})
		if err := tx.PutVM(world.VM{VMID: first, Power: hypervisor.PowerOff}); err != nil {
			return err
		}
		return tx.PutVM(world.VM{VMID: first + 1, Power: hypervisor.PowerOff})
	})
}

func checkWhole(t *testing.T, w *world.World) (effects int) {
	t.Helper()
	log, err := w.Effects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range log {
		if e.Seq != uint64(i+1) {
			t.Fatalf("effect %d has number %d", i+1, e.Seq)
		}
	}
	list, err := w.VMs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2*len(log) {
		t.Fatalf("%d machines after %d effects of two each", len(list), len(log))
	}
	return len(log)
}

func TestChangeConcurrent(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 8 {
		w := open(t, dir) // an own view each, as of an own process
		wg.Go(func() {
			for j := range 10 {
				if err := plantTwo(t.Context(), w, uint32(1000+100*i+2*j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := checkWhole(t, open(t, dir)); n != 80 {
		t.Errorf("%d effects, want 80", n)
	}
}

func TestChangeWithoutEffect(t *testing.T) {
	w := open(t, t.TempDir())
	err := w.Change(t.Context(), func(tx *world.Tx) error { return tx.PutVM(world.VM{VMID: 1}) })
	if list, _ := w.VMs(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("an unrecorded change happened: %v, %v", list, err)
	}
}

// killEnv makes the test binary change the world until somebody kills it.
const killEnv = "SIM_WORLD_TO_CHANGE"

func TestMain(m *testing.M) {
	dir := os.Getenv(killEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	w, err := world.Open(dir, nil)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	seq, err := w.Seq(ctx)
	for err == nil {
		err = plantTwo(ctx, w, uint32(1000+2*seq))
		seq++
	}
	panic(err)
}

// Whenever a process is killed, the next one finds whole effects only.
func TestKilledInMidChange(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir)
	before := 0
	for i := range 15 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), killEnv+"="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if n, err := w.Seq(t.Context()); err == nil && int(n) > before {
				break
			}
		}
		time.Sleep(time.Duration(i) * 531 * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		n := checkWhole(t, w)
		if n <= before {
			t.Fatalf("round %d: still %d effects", i, n)
		}
		before = n
	}
}

// A kill between the commit and the last of its writes is repaired.
func TestSettle(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir)
	if err := plantTwo(t.Context(), w, 1000); err != nil {
		t.Fatal(err)
	}
	pending := `{"effect":{"seq":2,"op":"test.two"},"put":{"vms/1002.json":{"vmid":1002},"vms/1003.json":{"vmid":1003}}}`
	write(t, filepath.Join(dir, "pending.json"), pending)
	write(t, filepath.Join(dir, "vms/1002.json"), `{"vmid":1002}`)
	log := filepath.Join(dir, "effects.log")
	content, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	write(t, log, string(content)+`{"seq":2,"op":"te`)
	if n := checkWhole(t, w); n != 2 {
		t.Errorf("%d effects, want 2", n)
	}
	// All was done but the last step.
	write(t, filepath.Join(dir, "pending.json"), pending)
	if n := checkWhole(t, w); n != 2 {
		t.Errorf("%d effects after a repeat, want 2", n)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFaults(t *testing.T) {
	var killed []world.Action
	w, err := world.Open(t.TempDir(), func(f world.Fault) error {
		killed = append(killed, f.Do)
		return errors.New("killed")
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(w.Dir(), "faults.json"), `{"faults":[
		{"at":"before","effect":1,"do":"kill-daemon"},
		{"at":"after","effect":2,"do":"kill-plugin"},
		{"at":"after","effect":3,"do":"fail","class":"timeout","message":"lost"},
		{"op":"vm.*","subject":"7","times":2,"do":"fail"},
		{"op":"vm.slow","times":-1,"do":"delay","for":"30ms"},
		{"op":"vm.hang","do":"hang"}]}`)
	ctx := t.Context()
	count := func() int { return checkWhole(t, w) }
	if err := plantTwo(ctx, w, 1); err == nil || count() != 0 {
		t.Errorf("before effect 1: %v, %d effects", err, count())
	}
	for i, wantErr := range []bool{false, true, true, false} { // effects 1 to 4
		if err := plantTwo(ctx, w, uint32(1+2*i)); (err != nil) != wantErr || count() != i+1 {
			t.Errorf("effect %d: %v, %d effects", i+1, err, count())
		}
	}
	if fmt.Sprint(killed) != "[kill-daemon kill-plugin]" {
		t.Errorf("killed %v", killed)
	}
	for i, wantErr := range []bool{true, true, false} {
		if err := w.Reach(ctx, "vm.get", "7"); errors.Is(err, fault.Unavailable) != wantErr {
			t.Errorf("call %d: %v", i, err)
		}
	}
	start := time.Now()
	if err := w.Reach(ctx, "vm.slow", "1"); err != nil || time.Since(start) < 30*time.Millisecond {
		t.Errorf("delay: %v after %v", err, time.Since(start))
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := w.Reach(short, "vm.hang", "1"); fault.ClassOf(err) != fault.Timeout {
		t.Errorf("hang: %v", err)
	}
	left, err := w.Faults()
	if err != nil || len(left) != 1 || left[0].Op != "vm.slow" {
		t.Errorf("faults left: %+v, %v", left, err)
	}
}

func TestFaultNobodyCanCarryOut(t *testing.T) {
	w := open(t, t.TempDir())
	for _, f := range []world.Fault{{Do: "explode"}, {At: world.Before, Do: world.Delay}, {Do: world.KillDaemon}} {
		if err := w.SetFaults(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		err := w.Reach(t.Context(), "vm.get", "1")
		if f.At == world.Before {
			err = plantTwo(t.Context(), w, 1)
		}
		if !errors.Is(err, fault.Internal) {
			t.Errorf("%+v: %v, want internal", f, err)
		}
	}
	write(t, filepath.Join(w.Dir(), "faults.json"), "{")
	if err := w.Reach(t.Context(), "vm.get", "1"); err == nil || !strings.Contains(err.Error(), "faults.json") {
		t.Errorf("unreadable faults: %v", err)
	}
}

// Faults of a guest's call: before it is made, once it is answered, and after
// some were let pass.
func TestFaultsOfCalls(t *testing.T) {
	w := open(t, t.TempDir())
	fail := func(at world.Point, skip int) world.Fault {
		return world.Fault{At: at, Op: "guest.log", Skip: skip, Do: world.Fail, Message: fmt.Sprint(at)}
	}
	if err := w.SetFaults(t.Context(), fail(world.After, 2), fail(world.Call, 1)); err != nil {
		t.Fatal(err)
	}
	got := ""
	for range 4 {
		for _, err := range []error{w.Reach(t.Context(), "guest.log", "1"), w.Answered(t.Context(), "guest.log", "1")} {
			if err != nil {
				got += err.Error()
			}
			got += "."
		}
	}
	if want := "..call...after..."; got != want {
		t.Errorf("struck at %q, want %q", got, want)
	}
}
