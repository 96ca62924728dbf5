package driver

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// startAnew makes a VM, starts it and destroys it.
func (l *lab) startAnew(d *Driver) hypervisor.Start {
	l.t.Helper()
	l.create(d)
	vm := l.power(d, hypervisor.PowerOn, 0)
	d.warming.running.Wait()
	l.destroyAndCheck(d)
	return vm.Start
}

// A template from which a start fails is left alone for a while, and after another
// failure it is made anew, though other daemons offer it.
func TestTemplateThatCannotBeStartedFrom(t *testing.T) {
	t.Parallel()
	spoilt := map[string]func(l *lab, d *Driver) (why string){
		"load": func(l *lab, d *Driver) string {
			l.damage(d)
			return "load memory template"
		},
		"name": func(l *lab, _ *Driver) string {
			l.guest.refuse = fault.New(fault.Unavailable, "no runner")
			return "no runner"
		},
	}
	for name, spoil := range spoilt {
		t.Run(name, func(t *testing.T) {
			l := newMemoryLab(t)
			l.config.MemoryTemplates = Auto
			l.config.MemoryCache = filepath.Join(l.state, "cache")
			d := l.driver()
			l.warm(d)
			key := l.keys(d)[0]
			before, err := d.memory.Find(key)
			if err != nil {
				t.Fatal(err)
			}
			why := spoil(l, d)
			tries := func(n int) {
				t.Helper()
				if f := d.warming.failure(key); f.starts != n {
					t.Errorf("%d starts from it failed, want %d", f.starts, n)
				}
			}
			for range 2 { // the second does not try
				if s := l.startAnew(d); s.Way != hypervisor.WayBoot || !strings.Contains(s.Reason, why) {
					t.Errorf("start = %+v", s)
				}
				tries(1)
			}
			if f := d.memoryFinding(); f.Level != plugin.LevelWarning || !strings.Contains(f.Message, why) || f.Fix == "" {
				t.Errorf("finding = %+v", f)
			}
			if now, err := d.memory.Find(key); err != nil || !now.Used.Equal(before.Used) {
				t.Errorf("its use was noted: %v, %v, %v", before.Used, now.Used, err)
			}
			f := d.warming.failed[key]
			f.started = f.started.Add(-2 * retryFailed)
			d.warming.failed[key] = f
			if s := l.startAnew(d); s.Way != hypervisor.WayBoot {
				t.Errorf("start = %+v", s)
			}
			l.guest.refuse = nil
			if now, err := d.memory.Find(key); err != nil || !now.Created.After(before.Created) || l.guest.settled != 2 {
				t.Errorf("it was not made anew: %v, %v, %v, %d builds", before.Created, now.Created, err, l.guest.settled)
			}
			if s := l.startAnew(d); s.Way != hypervisor.WayMemory {
				t.Errorf("start = %+v", s)
			}
			tries(0)
			if f := d.memoryFinding(); f.Level != plugin.LevelOK {
				t.Errorf("finding = %+v", f)
			}
		})
	}
}

// A VM that waits with such a template does not try it either, and people need not
// wait for a second failure.
func TestWarmMakesAFailedTemplateAnew(t *testing.T) {
	l := newMemoryLab(t)
	d := l.driver()
	l.warm(d)
	key := l.keys(d)[0]
	l.create(d)
	d.warming.noteStart(key, errors.New("it is no good"))
	if _, err := d.WarmTemplate(testContext(t), testWarmRequest(), nil); !errors.Is(err, fault.Precondition) || fault.HintOf(err) == "" {
		t.Errorf("made anew under a VM: %v", err)
	}
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayBoot {
		t.Errorf("start = %+v", vm.Start)
	}
	l.destroyAndCheck(d)
	l.warm(d)
	if l.guest.settled != 2 {
		t.Errorf("%d builds", l.guest.settled)
	}
	if s := l.startAnew(d); s.Way != hypervisor.WayMemory {
		t.Errorf("start = %+v", s)
	}
}

// A template without its disk is none, and the VM that was to start from it boots.
func TestTemplateWithoutItsDisk(t *testing.T) {
	l := newWarmLab(t)
	d := l.driver()
	l.create(d)
	if err := os.Remove(d.memory.Path(l.keys(d)[0], memory.DiskName)); err != nil {
		t.Fatal(err)
	}
	if vm := l.power(d, hypervisor.PowerOn, 0); vm.Start.Way != hypervisor.WayBoot || !strings.Contains(vm.Start.Reason, "gone or damaged") {
		t.Errorf("start = %+v", vm.Start)
	}
	l.destroyAndCheck(d)
	if s := l.startAnew(d); s.Way != hypervisor.WayBoot {
		t.Errorf("start = %+v", s)
	}
}

// An image that boots by firmware is never frozen, and says so.
func TestImageWithoutAKernelIsNotFrozen(t *testing.T) {
	l := newLab(t, testhost.Idle)
	l.config.MemoryTemplates = Auto
	d := l.driver()
	if s := l.startAnew(d); s.Way != hypervisor.WayBoot || !strings.Contains(s.Reason, "no kernel") {
		t.Errorf("start = %+v", s)
	}
	if _, err := d.WarmTemplate(testContext(t), testWarmRequest(), nil); !errors.Is(err, fault.Precondition) || fault.HintOf(err) == "" {
		t.Errorf("warm: %v", err)
	}
	if l.guest.settled > 0 {
		t.Errorf("%d builds", l.guest.settled)
	}
	if f := d.memoryFinding(); f.Level != plugin.LevelOK {
		t.Errorf("finding = %+v", f)
	}
}
