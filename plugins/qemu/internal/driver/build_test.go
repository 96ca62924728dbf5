package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

func TestBuildConvergesAfterKill(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"begun", "noted", "spawned", "started", "settled", "saved", "ended", "committed"} {
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
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	l.guest.ready = func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}
	d := l.driver()
	if _, err := d.WarmTemplate(ctx, testWarmRequest(), nil); !errors.Is(err, context.Canceled) {
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
	t.Parallel()
	old := time.Now().Add(-keepUnused - time.Hour)
	tests := map[string]struct {
		spoil func(l *lab, d *Driver, key string) error
		keep  bool
		image bool // is spoilt, and so must be the lab's own
	}{
		"fresh": {spoil: func(*lab, *Driver, string) error { return nil }, keep: true},
		"unused": {spoil: func(_ *lab, d *Driver, key string) error {
			return os.Chtimes(d.memory.Path(key, "manifest.json"), old, old)
		}},
		"unused and needed": {spoil: func(l *lab, d *Driver, key string) error {
			l.create(d)
			return os.Chtimes(d.memory.Path(key, "manifest.json"), old, old)
		}, keep: true},
		"unused and perhaps needed": {spoil: func(l *lab, d *Driver, key string) error {
			l.create(d)
			return errors.Join(
				os.Chtimes(d.memory.Path(key, "manifest.json"), old, old),
				os.WriteFile(d.store.Path(testVMID, "vm.json"), []byte("{"), 0o600),
			)
		}, keep: true},
		"image rebuilt": {image: true, spoil: func(l *lab, _ *Driver, _ string) error {
			now := time.Now()
			return os.Chtimes(filepath.Join(l.config.TemplateDir, "tiny-1", "root.qcow2"), now, now)
		}},
		"image gone": {image: true, spoil: func(l *lab, _ *Driver, _ string) error {
			return os.RemoveAll(filepath.Join(l.config.TemplateDir, "tiny-1"))
		}},
		"qemu gone":       {spoil: func(_ *lab, d *Driver, _ string) error { d.cfg.QEMUBinary = "/nonexistent/qemu"; return nil }, keep: true},
		"manifest broken": {spoil: func(_ *lab, d *Driver, key string) error { return os.Truncate(d.memory.Path(key, "manifest.json"), 9) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			lab := newWarmLab
			if tt.image {
				lab = newMemoryLab
			}
			l := lab(t)
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
