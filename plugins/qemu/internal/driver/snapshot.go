package driver

import (
	"context"
	"errors"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/disk"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

var _ hypervisor.Snapshotter = (*Driver)(nil)

// rootNode is the root disk as QEMU's monitor knows it.
const rootNode = "root"

// lockSnapshots is lockOwned for a change of the VM's snapshots, which are given.
func (d *Driver) lockSnapshots(
	ctx context.Context, ref hypervisor.Ref, name string,
) (v *record.VM, list record.Snapshots, unlock func(), err error) {
	if err := hypervisor.CheckSnapshotName(name); err != nil {
		return nil, nil, nil, err
	}
	v, unlock, err = d.lockOwned(ctx, ref)
	if err != nil {
		return nil, nil, nil, err
	}
	if list, err = d.store.Snapshots(v.VMID); err != nil {
		unlock()
		return nil, nil, nil, err
	}
	return v, list, unlock, nil
}

// CreateSnapshot implements hypervisor.Snapshotter. A snapshot lies in the VM's
// own disk, so no volume is ever in it.
func (d *Driver) CreateSnapshot(ctx context.Context, ref hypervisor.Ref, name string, withMemory bool) (hypervisor.Snapshot, error) {
	var none hypervisor.Snapshot
	v, list, unlock, err := d.lockSnapshots(ctx, ref, name)
	if err != nil {
		return none, err
	}
	defer unlock()
	if list.Whole(name) {
		return present(*list.Find(name)), nil
	}
	one := record.Snapshot{Name: name, State: record.SnapshotCreating, Created: time.Now().UTC()}
	id, err := d.settled(ctx, v)
	if err == nil && withMemory {
		one.Memory, err = d.memoryState(ctx, v, id)
	}
	if err != nil {
		return none, err
	}
	if err := d.store.SaveSnapshots(v.VMID, list.With(one)); err != nil {
		return none, err
	}
	d.crash("snapshot-noted")
	if err := d.keep(ctx, v, id, one); err != nil {
		return none, errors.Join(err, d.undoSnapshot(ctx, v, list, one))
	}
	d.crash("snapshot-made")
	one.State = record.SnapshotReady
	if err := d.store.SaveSnapshots(v.VMID, list.With(one)); err != nil {
		return none, err
	}
	return present(one), nil
}

func (d *Driver) rootImage(v *record.VM) disk.Image {
	return disk.Image{Path: d.store.Path(v.VMID, diskName), UID: v.UID}
}

// keep makes the snapshot in the disk, in the place of what a call that was cut
// short may have made.
func (d *Driver) keep(ctx context.Context, v *record.VM, id *procfs.Identity, one record.Snapshot) error {
	if id == nil {
		return d.rootImage(v).Keep(ctx, one.Name)
	}
	if err := d.drop(ctx, v, id, one.Name); err != nil {
		return err
	}
	if one.Memory != nil {
		return d.keepMemory(ctx, v, one.Name)
	}
	return d.ask(ctx, v.VMID, commandTimeout, func(ctx context.Context, c *qmp.Client) error {
		args := map[string]any{"device": rootNode, "name": one.Name}
		if err := c.Execute(ctx, "blockdev-snapshot-internal-sync", args, nil); err != nil {
			return fault.New(classOf(err.Error()), "make snapshot of vm %d: %w", v.VMID, err)
		}
		return nil
	})
}

// drop removes what the disk has under the name. Nothing is no error.
func (d *Driver) drop(ctx context.Context, v *record.VM, id *procfs.Identity, name string) error {
	if id == nil {
		return d.rootImage(v).Drop(ctx, name)
	}
	return d.ask(ctx, v.VMID, snapshotTimeout, func(ctx context.Context, c *qmp.Client) error {
		for {
			there, err := hasSnapshot(ctx, c, name)
			if err != nil || !there {
				return err
			}
			args := map[string]any{"device": rootNode, "name": name}
			if err := c.Execute(ctx, "blockdev-snapshot-delete-internal-sync", args, nil); err != nil {
				return fault.New(fault.Internal, "delete snapshot of vm %d: %w", v.VMID, err)
			}
		}
	})
}

func hasSnapshot(ctx context.Context, c *qmp.Client, name string) (bool, error) {
	var found []struct {
		Node  string `json:"node-name"`
		Image struct {
			Snapshots []struct {
				Name string `json:"name"`
			} `json:"snapshots"`
		} `json:"image"`
	}
	if err := c.Execute(ctx, "query-named-block-nodes", map[string]any{"flat": true}, &found); err != nil {
		return false, err
	}
	for _, n := range found {
		for _, s := range n.Image.Snapshots {
			if n.Node == rootNode && s.Name == name {
				return true, nil
			}
		}
	}
	return false, nil
}

// undoSnapshot removes what a call that failed has made.
func (d *Driver) undoSnapshot(ctx context.Context, v *record.VM, before record.Snapshots, one record.Snapshot) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), snapshotTimeout)
	defer cancel()
	id, err := d.settled(ctx, v)
	if err == nil {
		err = d.drop(ctx, v, id, one.Name)
	}
	if err != nil {
		// Its note stays, and with it what is to be done.
		plugin.Log(ctx, d.log).Warn("half-made snapshot was not removed", "vmid", v.VMID, "err", err)
		return nil
	}
	return d.store.SaveSnapshots(v.VMID, before.Without(one.Name))
}

// RollbackSnapshot implements hypervisor.Snapshotter. Without memory an attached
// volume stays as it is.
func (d *Driver) RollbackSnapshot(ctx context.Context, ref hypervisor.Ref, name string) (hypervisor.VM, error) {
	var none hypervisor.VM
	v, list, unlock, err := d.lockSnapshots(ctx, ref, name)
	if err != nil {
		return none, err
	}
	defer unlock()
	if !list.Whole(name) {
		return none, noSnapshot(name, "vm "+formatVMID(v.VMID))
	}
	one := *list.Find(name)
	if one.Memory != nil {
		err = d.resume(ctx, v, one)
	} else {
		err = d.goBack(ctx, v, name)
	}
	if err != nil {
		return none, err
	}
	return d.view(ctx, v)
}

func (d *Driver) goBack(ctx context.Context, v *record.VM, name string) error {
	if err := d.powerOff(ctx, v, 0); err != nil {
		return err
	}
	d.crash("rollback-off")
	return d.rootImage(v).Apply(ctx, name)
}

// DeleteSnapshot implements hypervisor.Snapshotter.
func (d *Driver) DeleteSnapshot(ctx context.Context, ref hypervisor.Ref, name string) ([]hypervisor.Snapshot, error) {
	v, list, unlock, err := d.lockSnapshots(ctx, ref, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	one := list.Find(name)
	if one == nil {
		return presentAll(list), nil
	}
	one.State = record.SnapshotDeleting
	if err := d.store.SaveSnapshots(v.VMID, list); err != nil {
		return nil, err
	}
	d.crash("snapshot-condemned")
	id, err := d.settled(ctx, v)
	if err == nil {
		err = d.drop(ctx, v, id, name)
	}
	if err != nil {
		return nil, err
	}
	list = list.Without(name)
	return presentAll(list), d.store.SaveSnapshots(v.VMID, list)
}

// ListSnapshots implements hypervisor.Snapshotter.
func (d *Driver) ListSnapshots(_ context.Context, ref hypervisor.Ref) ([]hypervisor.Snapshot, error) {
	v, err := d.store.Load(ref.VMID)
	if err != nil {
		return nil, err
	}
	if ref.Owner != "" && ref.Owner != v.Owner {
		return nil, fault.New(fault.Precondition, "vm %d belongs to somebody else", ref.VMID).WithHolder(v.Owner)
	}
	list, err := d.store.Snapshots(ref.VMID)
	return presentAll(list), err
}

// remakeSnapshots puts the snapshots of a VM that has never run into a disk that
// was made anew: they show the same.
func (d *Driver) remakeSnapshots(ctx context.Context, v *record.VM) error {
	list, err := d.store.Snapshots(v.VMID)
	for i := 0; err == nil && i < len(list); i++ {
		err = d.rootImage(v).Keep(ctx, list[i].Name)
	}
	return err
}

func present(s record.Snapshot) hypervisor.Snapshot {
	return hypervisor.Snapshot{Name: s.Name, Created: s.Created, WithMemory: s.Memory != nil}
}

func presentAll(list record.Snapshots) (out []hypervisor.Snapshot) {
	for _, s := range list {
		if s.State == record.SnapshotReady {
			out = append(out, present(s))
		}
	}
	return out
}
