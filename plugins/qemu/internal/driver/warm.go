package driver

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

const (
	// retryFailed is how long a template that could not be made, or from which
	// nothing starts, is not tried again unasked.
	retryFailed = time.Hour
	// maxMisses is how many starts in a row may fail, each of which costs its VM
	// time, until a template is left alone. A busy host may be the cause of one.
	maxMisses = 3
)

// warming is the build in the background, and what became of earlier ones.
type warming struct {
	mu sync.Mutex
	// mu guards:
	failed map[string]failedBuild // by key
	misses map[string]int         // starts from a template that failed one after the other
	last   string                 // key of the newest failure
	cancel context.CancelFunc     // not nil while a build runs
	closed bool

	running sync.WaitGroup
}

type failedBuild struct {
	err error
	at  time.Time
}

// note remembers how a build ended.
func (w *warming) note(key string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		delete(w.failed, key)
		return
	}
	w.fail(key, err)
}

// tried notes how a start from the template ended. A template from which nothing
// starts counts as one that could not be made.
func (w *warming) tried(key string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		delete(w.misses, key)
		return
	}
	if w.misses == nil {
		w.misses = map[string]int{}
	}
	if w.misses[key]++; w.misses[key] >= maxMisses {
		delete(w.misses, key)
		w.fail(key, err)
	}
}

// fail is called with mu held.
func (w *warming) fail(key string, err error) {
	if w.failed == nil {
		w.failed = map[string]failedBuild{}
	}
	w.failed[key], w.last = failedBuild{err, time.Now()}, key
}

// avoid reports whether a template of this key is better left alone for now.
func (w *warming) avoid(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	f, failed := w.failed[key]
	return failed && time.Since(f.at) < retryFailed
}

// failure is why the last build of this key failed, nil if it did not.
func (w *warming) failure(key string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed[key].err
}

// newest is the newest failure that was not made good.
func (w *warming) newest() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed[w.last].err
}

// begin runs build unless another is running or it failed lately.
func (w *warming) begin(ctx context.Context, key string, build func(context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f, failed := w.failed[key]; w.closed || w.cancel != nil || failed && time.Since(f.at) < retryFailed {
		return
	}
	// It goes on when the call that gave rise to it is over.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.cancel = cancel
	w.running.Go(func() {
		build(ctx)
		cancel()
		w.mu.Lock()
		defer w.mu.Unlock()
		w.cancel = nil
	})
}

// Close ends what runs in the background. VMs run on.
func (d *Driver) Close(context.Context) error {
	w := &d.warming
	w.mu.Lock()
	w.closed = true
	if w.cancel != nil {
		w.cancel()
	}
	w.mu.Unlock()
	w.running.Wait() // it ends soon after its context
	d.vault.Close()
	return nil
}

// WarmTemplate implements hypervisor.TemplateWarmer.
func (d *Driver) WarmTemplate(
	ctx context.Context, req hypervisor.WarmRequest, progress func(hypervisor.Progress),
) (hypervisor.Template, error) {
	var none hypervisor.Template
	if err := validSize(req.Cores, req.MemoryBytes); err != nil {
		return none, err
	}
	t, err := d.catalog.Find(req.Template)
	if err != nil {
		return none, err
	}
	if !d.cfg.warms() {
		return none, fault.New(fault.Precondition, "memory templates are switched off").
			WithHint("set memory_templates of the qemu plugin to auto or manual")
	}
	if _, err := d.warm(ctx, sized(t, req.Cores, req.MemoryBytes, req.RootDiskBytes), progress); err != nil {
		return none, err
	}
	return d.template(ctx, t.VMID)
}

// warm gives the memory template for VMs like v, and makes it if there is none.
func (d *Driver) warm(ctx context.Context, v *record.VM, progress func(hypervisor.Progress)) (memory.Template, error) {
	fit, err := d.fit(ctx, v)
	if err != nil {
		return memory.Template{}, err
	}
	t, err := d.memory.Find(fit.Key())
	if err == nil {
		d.warming.note(t.Key, nil) // it was asked for, so it gets another chance
	}
	if !errors.Is(err, fault.NotFound) {
		return t, err
	}
	t, err = d.build(ctx, fit, v, progress)
	if err == nil || ctx.Err() == nil {
		d.warming.note(fit.Key(), err)
	}
	return t, err
}

// warmLater makes a memory template for VMs like this one, which had to boot, in
// the background.
func (d *Driver) warmLater(ctx context.Context, v *record.VM) {
	if d.cfg.MemoryTemplates != Auto {
		return
	}
	t, err := d.catalog.Find(v.Template.Name)
	if err != nil || noted(t) != v.Template {
		return // no further VM will be made of that image
	}
	like := sized(t, v.Cores, v.MemoryBytes, v.DiskBytes)
	fit, err := d.fit(ctx, like)
	if err != nil {
		return // the next start says so
	}
	if _, err := d.memory.Find(fit.Key()); err == nil {
		return
	}
	log := plugin.Log(ctx, d.log)
	d.warming.begin(ctx, fit.Key(), func(ctx context.Context) {
		began := time.Now()
		if _, err := d.warm(ctx, like, nil); err != nil && ctx.Err() == nil {
			log.Warn("memory template was not made", "err", err)
		} else if err == nil {
			log.Info("memory template made", "took", time.Since(began))
		}
	})
}

// memoryFinding says whether VMs can start from memory here.
func (d *Driver) memoryFinding() plugin.Finding {
	f := plugin.Finding{ID: "memory_templates", Level: plugin.LevelWarning}
	if !d.cfg.warms() {
		f.Level, f.Message = plugin.LevelOK, "not wanted: memory_templates is off, so every VM boots"
		return f
	}
	if err := memory.Sealable(); err != nil {
		f.Message, f.Fix = "every VM boots: "+err.Error(), "use a kernel with memfd_create, and let the plugin use it"
		return f
	}
	if err := d.warming.newest(); err != nil {
		f.Message, f.Fix = "the last memory template is of no use, so VMs of that size boot: "+err.Error(), fault.HintOf(err)
		if f.Fix == "" {
			f.Fix = "agentlab template warm tries it again and shows where it stops"
		}
		return f
	}
	f.Level, f.Message = plugin.LevelOK, "VMs start from memory where there is a template of their size"
	return f
}
