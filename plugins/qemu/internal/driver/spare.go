package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/spawn"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// spare is a guest that goes on from a memory template already, has rehearsed what it
// will have to do, and waits, paused, for a VM to become. It has neither an identity nor
// a network. The process that made it has it alone, and ends it at its own end.
type spare struct {
	key     string      // of its memory template
	base    os.FileInfo // the disk of that
	dir     record.SpareDir
	program *spawn.Program
	tap     *os.File // QEMU has it too
}

// lives reports whether it can still become a VM. A host short of memory ends spares first.
func (s *spare) lives() bool { return procfs.Check(s.program.Identity) == nil }

// tenant says which programs are the spare's.
func (s *spare) tenant() tenant { return tenantOf(s.dir.Note) }

func tenantOf(n record.Spare) tenant {
	t := tenant{uid: n.UID, mark: n.Mark, spare: true}
	if n.PID != 0 {
		t.noted, t.alone = &procfs.Identity{PID: n.PID, StartTicks: n.StartTicks, UID: n.UID}, true
	}
	return t
}

// endSpares ends spares whom nobody will want. It is best effort: what is left is ended
// when a plugin starts on this state folder.
func (d *Driver) endSpares(ctx context.Context, all []*spare) {
	var ending sync.WaitGroup
	for _, s := range all {
		ending.Go(func() {
			if err := d.endSpare(ctx, s); err != nil {
				plugin.Log(ctx, d.log).Warn("spare guest was not ended", "uid", s.dir.Note.UID, "err", err)
			}
		})
	}
	ending.Wait()
}

func (d *Driver) endSpare(ctx context.Context, s *spare) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	if s.program != nil {
		s.program.Close()
	}
	if s.tap != nil {
		_ = s.tap.Close()
	}
	if err := d.kill(ctx, s.tenant()); err != nil {
		s.dir.Close()
		return err
	}
	return s.dir.Remove()
}

// sparesFinding says how many spares wait.
func (d *Driver) sparesFinding() plugin.Finding {
	f := plugin.Finding{ID: "spares", Level: plugin.LevelOK}
	if d.cfg.Spares == 0 {
		f.Message = "not wanted: spares is 0, so every VM starts its own guest"
		return f
	}
	waiting, wanted, failed := d.spares.state()
	f.Message = fmt.Sprintf("%d of %d spare guests wait", waiting, d.cfg.Spares)
	switch {
	case failed != nil:
		f.Level, f.Fix = plugin.LevelWarning, fault.HintOf(failed)
		f.Message += ", because the next could not be made: " + failed.Error()
		if f.Fix == "" {
			f.Fix = "it is tried again by itself; the plugin's log tells more"
		}
	case !wanted:
		f.Message += ": no VM has started from memory yet"
	case waiting < int(d.cfg.Spares):
		f.Message += ": the next is made when no VM is starting, or within a minute"
	}
	return f
}

// tidySpares ends those that a killed plugin has left.
func (d *Driver) tidySpares(ctx context.Context) error {
	left, err := d.store.LostSpares(ctx)
	for _, dir := range left {
		if bad := d.endLost(ctx, dir.Note); bad != nil {
			err = errors.Join(err, bad)
			dir.Close()
			continue
		}
		err = errors.Join(err, dir.Remove())
	}
	return err
}

func (d *Driver) endLost(ctx context.Context, n record.Spare) error {
	if n.BootID != d.bootID || n.Mark == "" {
		return nil
	}
	// A VM that has the user is what the spare was to become, and will not, or came later.
	vm, err := d.neighbour(0, n.UID)
	if err != nil {
		return err
	}
	t := tenantOf(n)
	if vm != 0 {
		t.alone, t.shares = false, true
	}
	return d.kill(ctx, t)
}
