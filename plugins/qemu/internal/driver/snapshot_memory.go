package driver

import (
	"context"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/accel"
	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	// snapshotTimeout is for the memory of a large VM on a slow disk.
	snapshotTimeout = 10 * time.Minute
	jobPoll         = 50 * time.Millisecond
	snapshotJob     = "agentlab-snapshot"
)

// memoryState says what the VM's memory could go on in. Disks that are not in the
// snapshot would be newer than what the memory knows of them.
func (d *Driver) memoryState(ctx context.Context, v *record.VM, id *procfs.Identity) (*record.MemoryState, error) {
	if id == nil {
		return nil, fault.New(fault.Precondition, "vm %d is off and has no memory to keep", v.VMID).WithHint("start it, or leave out the memory")
	}
	if err := d.withoutVolumes(v); err != nil {
		return nil, err
	}
	version, err := d.versions.QEMU(ctx, d.cfg.QEMUBinary)
	if err != nil {
		return nil, err
	}
	running, err := d.runningVersion(ctx, v.VMID)
	if err != nil {
		return nil, err
	}
	ways, err := d.chooser.Ways(ctx, version)
	if err != nil {
		return nil, err
	}
	for _, way := range ways {
		if running == version && way.Name == v.Run.Accel {
			return &record.MemoryState{QEMU: version.String(), Accel: way.Name, CPU: way.CPU, Board: machine.Board}, nil
		}
	}
	return nil, fault.New(fault.Precondition, "vm %d runs in qemu %s by %s, and starts of vms are by qemu %s now", v.VMID, running, v.Run.Accel, version).
		WithHint("stop and start it first, or leave out the memory")
}

// runningVersion is that of the VM's program, which may have been replaced on
// disk since it was started.
func (d *Driver) runningVersion(ctx context.Context, vmid uint32) (accel.Version, error) {
	var answer struct {
		QEMU struct {
			Major int `json:"major"`
			Minor int `json:"minor"`
		} `json:"qemu"`
	}
	err := d.ask(ctx, vmid, commandTimeout, func(ctx context.Context, c *qmp.Client) error {
		return c.Execute(ctx, "query-version", nil, &answer)
	})
	return accel.Version{Major: answer.QEMU.Major, Minor: answer.QEMU.Minor}, err
}

func (d *Driver) withoutVolumes(v *record.VM) error {
	volumes, err := d.volumes.Of(v.VMID, v.Owner)
	if err != nil {
		return err
	}
	for _, vol := range volumes {
		return fault.New(fault.Precondition, "vm %d has volume %s, which is in no snapshot and would not fit the memory", v.VMID, vol.ID).
			WithResource("volume %s", vol.ID).WithHint("detach it first, or leave out the memory")
	}
	return nil
}

// keepMemory has QEMU write the guest's memory and a snapshot of its disk into
// the disk. The guest stands still meanwhile, and the monitor, too.
func (d *Driver) keepMemory(ctx context.Context, v *record.VM, name string) error {
	return d.ask(ctx, v.VMID, snapshotTimeout, func(ctx context.Context, c *qmp.Client) error {
		// A guest that came up from a memory template has its program set so that
		// shared memory is left out, and what loads this later is not.
		whole := map[string]any{"capabilities": []any{map[string]any{"capability": "x-ignore-shared", "state": false}}}
		if err := c.Execute(ctx, "migrate-set-capabilities", whole, nil); err != nil {
			return err
		}
		return job(ctx, c, "snapshot-save", name)
	})
}

// job runs one on the root disk and memory, and gives its error. One that a call
// before left behind is waited for.
func job(ctx context.Context, c *qmp.Client, command, name string) error {
	if err := finishJob(ctx, c); err != nil {
		return err
	}
	err := c.Execute(ctx, command, map[string]any{
		"job-id": snapshotJob, "tag": name, "vmstate": rootNode, "devices": []string{rootNode},
	}, nil)
	if err != nil {
		return fault.New(fault.Internal, "%s: %w", command, err)
	}
	return finishJob(ctx, c)
}

// finishJob waits for the end of the job, if there is one, and clears it away.
func finishJob(ctx context.Context, c *qmp.Client) error {
	for {
		var jobs []struct {
			ID     string `json:"id"`
			Status string `json:"status"`
			Error  string `json:"error"`
		}
		if err := c.Execute(ctx, "query-jobs", nil, &jobs); err != nil {
			return err
		}
		running := false
		for _, j := range jobs {
			if j.ID != snapshotJob {
				continue
			}
			if running = j.Status != "concluded"; running {
				continue
			}
			if err := c.Execute(ctx, "job-dismiss", map[string]any{"id": snapshotJob}, nil); err != nil {
				return err
			}
			if j.Error != "" {
				return fault.New(classOf(j.Error), "qemu says: %s", j.Error)
			}
		}
		if !running {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Timeout, "wait for qemu's snapshot: %w", ctx.Err())
		case <-time.After(jobPoll):
		}
	}
}

// resume ends the VM's program, if there is one, and has another go on from the
// snapshot's memory and disk.
func (d *Driver) resume(ctx context.Context, v *record.VM, one record.Snapshot) error {
	if err := d.withoutVolumes(v); err != nil {
		return err
	}
	way, err := d.wayOf(ctx, one)
	if err != nil {
		return err
	}
	if err := d.powerOff(ctx, v, 0); err != nil {
		return err
	}
	d.crash("rollback-off")
	return d.startWith(ctx, v, start{way: way, prepare: func(ctx context.Context) error {
		return d.ask(ctx, v.VMID, snapshotTimeout, func(ctx context.Context, c *qmp.Client) error {
			return job(ctx, c, "snapshot-load", one.Name)
		})
	}})
}

// wayOf finds the way to execute the guest in which its memory was kept.
func (d *Driver) wayOf(ctx context.Context, one record.Snapshot) (machine.Accel, error) {
	if one.Memory.Board != machine.Board {
		return machine.Accel{}, fault.New(fault.Precondition, "snapshot %q holds memory of a machine with other devices", one.Name).
			WithHint("an earlier version of this plugin took it; go back to a snapshot without memory")
	}
	version, err := d.versions.QEMU(ctx, d.cfg.QEMUBinary)
	if err != nil {
		return machine.Accel{}, err
	}
	ways, err := d.chooser.Ways(ctx, version)
	if err != nil {
		return machine.Accel{}, err
	}
	for _, way := range ways {
		if version.String() == one.Memory.QEMU && way.Name == one.Memory.Accel && way.CPU == one.Memory.CPU {
			return way, nil
		}
	}
	return machine.Accel{}, fault.New(fault.Precondition, "snapshot %q holds memory of qemu %s by %s, and this is qemu %s",
		one.Name, one.Memory.QEMU, one.Memory.Accel, version).
		WithHint("install that version again, or go back to a snapshot without memory")
}
