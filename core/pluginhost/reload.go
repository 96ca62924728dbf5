package pluginhost

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"
	"sync"

	"github.com/hashicorp/hcl/v2"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Restart replaces the process of a plugin, named by its kind or name, by a new
// one; calls do not notice. A plugin that is down is started at once. When the
// new process does not come up, all stays as it was and the error says why.
func (h *Host) Restart(ctx context.Context, kindOrName string) error {
	done, err := h.alone(ctx)
	if err != nil {
		return err
	}
	defer done()
	inst, err := h.named(kindOrName)
	if err != nil {
		return err
	}
	r, err := inst.start(ctx, inst.blockNow(), true)
	if err != nil {
		return err
	}
	return inst.hand(ctx, r)
}

// alone waits for the end of other restarts and reloads.
func (h *Host) alone(ctx context.Context) (done func(), err error) {
	select {
	case h.reloading <- struct{}{}:
		return func() { <-h.reloading }, nil
	case <-ctx.Done():
		return nil, fault.New(fault.Locked, "wait for another replacement of plugins: %w", ctx.Err())
	}
}

// Reload makes the host run these blocks: processes whose block or binary is
// another are replaced as by Restart, plugins that came are started, and those
// that went are stopped once their calls have ended. The new processes are
// started first, and if one does not come up all stays as it was. Only a plugin
// that may not run twice, or is to have another user, cannot be tried before: when
// it fails, changed names what was replaced nevertheless.
func (h *Host) Reload(ctx context.Context, blocks []Block) (changed []string, diags hcl.Diagnostics) {
	done, err := h.alone(ctx)
	if err != nil {
		return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: err.Error()}}
	}
	defer done()
	changes, next := h.compare(blocks)
	if diags := h.vacant(ctx, changes); diags.HasErrors() {
		return nil, diags
	}
	if diags := startAll(ctx, changes); diags.HasErrors() {
		return nil, diags
	}
	// First what can still fail.
	slices.SortStableFunc(changes, func(a, b *change) int { return cmp.Compare(a.rank(), b.rank()) })
	for n, c := range changes {
		if !c.add {
			if err := c.inst.hand(ctx, c.next); err != nil {
				abandon(ctx, changes[n+1:])
				return changed, c.diagnostics(err)
			}
		}
		changed = append(changed, c.inst.label())
	}
	return append(changed, h.put(ctx, changes, next)...), nil
}

// change is one plugin that a reload starts.
type change struct {
	inst  *instance
	block Block
	add   bool // inst does not run yet
	next  *request
}

func (c *change) rank() int {
	if c.next.exclusive {
		return 0
	}
	return 1
}

// diagnostics puts an error where its block is.
func (c *change) diagnostics(err error) hcl.Diagnostics {
	if err == nil {
		return nil
	}
	if wrong := (*ConfigError)(nil); errors.As(err, &wrong) {
		return wrong.Diagnostics
	}
	what := "its process was not replaced, the old one stays: "
	if c.add {
		what = "its process was not started: "
	}
	return hcl.Diagnostics{{
		Severity: hcl.DiagError, Subject: &c.block.Range, Summary: what + oneLine(err.Error()), Detail: fault.HintOf(err),
	}}
}

// vacant waits until no process is left of an earlier plugin whose name, and so
// whose state folder, one that comes has.
func (h *Host) vacant(ctx context.Context, changes []*change) (diags hcl.Diagnostics) {
	h.mu.RLock()
	left := slices.Clone(h.leaving)
	h.mu.RUnlock()
	for _, c := range changes {
		for _, old := range left {
			if !c.add || old.label() != c.inst.label() {
				continue
			}
			select {
			case <-old.ended:
			case <-ctx.Done():
				diags = append(diags, c.diagnostics(fault.New(fault.Locked, "its earlier process has calls to finish: %w", ctx.Err()))...)
			}
		}
	}
	return diags
}

// compare finds what is to be started, and the instances that are to run.
func (h *Host) compare(blocks []Block) (changes []*change, next []*instance) {
	now := h.all()
	for _, b := range blocks {
		inst := h.instance(b)
		add := true
		if n := slices.IndexFunc(now, func(i *instance) bool { return i.kind == b.Kind && i.name == b.Name }); n >= 0 {
			inst, add = now[n], false
		}
		next = append(next, inst)
		if add || !inst.runs(b) {
			changes = append(changes, &change{inst: inst, block: b, add: add})
		}
	}
	return changes, next
}

// runs reports whether the instance is of this block and binary, and takes note
// of where the block is in its file now.
func (i *instance) runs(b Block) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	same := slices.Equal(i.block.Words, b.Words) && i.cfg.pathOf(i.block) == i.cfg.pathOf(b) && sameFile(i.binary, i.cfg.pathOf(b))
	if same {
		i.block = b
	}
	return same
}

// sameFile reports whether the file at path is the one that was started. One
// that cannot be looked at cannot be started either.
func sameFile(was os.FileInfo, path string) bool {
	now := statBinary(path)
	if was == nil || now == nil {
		return was == nil && now == nil
	}
	return os.SameFile(was, now) && was.Size() == now.Size() && was.ModTime().Equal(now.ModTime())
}

// startAll starts the new processes side by side. On an error none is left.
func startAll(ctx context.Context, changes []*change) hcl.Diagnostics {
	errs := make([]error, len(changes))
	var wg sync.WaitGroup
	for n, c := range changes {
		wg.Go(func() { c.next, errs[n] = c.inst.start(ctx, c.block, !c.add) })
	}
	wg.Wait()
	var out hcl.Diagnostics
	for n, c := range changes {
		out = append(out, c.diagnostics(errs[n])...)
	}
	if out.HasErrors() {
		abandon(ctx, changes)
	}
	return out
}

func abandon(ctx context.Context, changes []*change) {
	for _, c := range changes {
		if c.next != nil {
			c.next.next.abandon(ctx, c.inst)
		}
	}
}

// put makes the instances those of the host, runs those that came and lets go
// of those that went, which it names. A host that is being stopped stays as it
// is.
func (h *Host) put(ctx context.Context, changes []*change, next []*instance) (gone []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.spawn == nil {
		abandon(ctx, slices.DeleteFunc(changes, func(c *change) bool { return !c.add }))
		return nil
	}
	for _, c := range changes {
		if c.add {
			h.keep(c.inst, c.next.next)
		}
	}
	h.leaving = slices.DeleteFunc(h.leaving, (*instance).hasEnded)
	for _, old := range h.instances {
		if !slices.Contains(next, old) {
			h.leaving = append(h.leaving, old)
			gone = append(gone, old.label())
			h.spawn(func(ctx context.Context) error {
				old.leave(ctx)
				return nil
			})
		}
	}
	h.instances = next
	return gone
}

// leave ends an instance that gets no more calls, once it has done those it has.
func (i *instance) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, retirePatience)
	defer cancel()
	i.mu.Lock()
	up := i.current
	i.mu.Unlock()
	if up != nil {
		up.traffic.drained(ctx)
	}
	close(i.leaves)
}
