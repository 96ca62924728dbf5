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

// retryFailed is how long a template that could not be made, or not be started from,
// is not tried again unasked.
const retryFailed = time.Hour

// maxFailedStarts in a row make a template one that is made anew.
const maxFailedStarts = 2

// warming is the build in the background, and what became of earlier ones.
type warming struct {
	mu sync.Mutex
	// mu guards:
	failed map[string]failure // by key
	last   string             // key of the newest failure
	cancel context.CancelFunc // not nil while a build runs
	closed bool

	running sync.WaitGroup
}

// failure is what is wrong with a template.
type failure struct {
	err     error
	built   time.Time // when it could not be made, zero for never
	started time.Time // when a start from it failed
	starts  int       // that failed in a row
}

// String is for people, "" when nothing is wrong.
func (f failure) String() string {
	switch {
	case f.err == nil:
		return ""
	case f.starts > 0:
		return "starts from its memory template fail: " + f.err.Error()
	}
	return "its memory template could not be made: " + f.err.Error()
}

// shunned reports whether nothing is to start from the template now.
func (f failure) shunned() bool { return f.starts > 0 && time.Since(f.started) < retryFailed }

// note remembers how a build ended. A start that came to its end is as good as one.
func (w *warming) note(key string, err error) {
	w.put(key, err, func(f *failure) { f.built = time.Now() })
}

// noteStart remembers that a start from the template failed.
func (w *warming) noteStart(key string, err error) {
	w.put(key, err, func(f *failure) { f.started, f.starts = time.Now(), f.starts+1 })
}

func (w *warming) put(key string, err error, change func(*failure)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		delete(w.failed, key)
		return
	}
	if w.failed == nil {
		w.failed = map[string]failure{}
	}
	f := w.failed[key]
	f.err = err
	change(&f)
	w.failed[key], w.last = f, key
}

// failure is what is wrong with the template of this key.
func (w *warming) failure(key string) failure {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed[key]
}

// newest is the newest failure that was not made good.
func (w *warming) newest() failure {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed[w.last]
}

// begin runs build unless another is running or it failed lately.
func (w *warming) begin(ctx context.Context, key string, build func(context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.cancel != nil || time.Since(w.failed[key].built) < retryFailed {
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

// Close ends what runs in the background, and spares. VMs run on.
func (d *Driver) Close(ctx context.Context) error {
	w := &d.warming
	w.mu.Lock()
	w.closed = true
	if w.cancel != nil {
		w.cancel()
	}
	w.mu.Unlock()
	d.endSpares(ctx, d.spares.close())
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
	if err := freezable(noted(t)); err != nil {
		return none, err
	}
	like := sized(t, req.Cores, req.MemoryBytes, req.RootDiskBytes)
	frozen, err := d.warm(ctx, like, progress)
	if err != nil {
		return none, err
	}
	like.Memory = &record.Memory{Key: frozen.Key, Disk: d.memory.Path(frozen.Key, memory.DiskName)}
	d.sparesLater(ctx, like)
	return d.template(ctx, t.VMID)
}

// warm gives the memory template for VMs like v, and makes it if there is none, or
// one from which starts have failed.
func (d *Driver) warm(ctx context.Context, v *record.VM, progress func(hypervisor.Progress)) (memory.Template, error) {
	fit, err := d.fit(ctx, v)
	if err != nil {
		return memory.Template{}, err
	}
	t, err := d.memory.Find(fit.Key())
	if !errors.Is(err, fault.NotFound) && d.warming.failure(fit.Key()).starts == 0 {
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
	if d.cfg.MemoryTemplates != Auto || freezable(v.Template) != nil {
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
	if _, err := d.memory.Find(fit.Key()); err == nil && d.warming.failure(fit.Key()).starts < maxFailedStarts {
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
	if failed := d.warming.newest(); failed.err != nil {
		f.Message, f.Fix = "VMs of one image and size boot, because "+failed.String(), fault.HintOf(failed.err)
		if f.Fix == "" {
			f.Fix = "agentlab template warm makes it again and shows where it stops"
		}
		return f
	}
	f.Level, f.Message = plugin.LevelOK, "VMs start from memory where there is a template of their size"
	return f
}
