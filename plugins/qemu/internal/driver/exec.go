package driver

import (
	"context"
	"maps"
	"slices"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

var _ hypervisor.GuestExecutor = (*Driver)(nil)

// Exec implements hypervisor.GuestExecutor. It does not hold the VM: a program
// that runs for long keeps nobody from stopping it.
func (d *Driver) Exec(ctx context.Context, ref hypervisor.Ref, cmd hypervisor.Command, streams hypervisor.Streams) (int, error) {
	v, err := d.owned(ref)
	if err != nil {
		return 0, err
	}
	id, err := d.program(v)
	if err != nil {
		return 0, err
	}
	if id == nil || v.Run.State != record.RunRunning {
		return 0, fault.New(fault.Precondition, "vm %d is off", ref.VMID).WithHint("start it first")
	}
	status, err := d.status(ctx, ref.VMID)
	if err != nil {
		return 0, err
	}
	if powerOf(status) != hypervisor.PowerOn {
		return 0, fault.New(fault.Precondition, "vm %d is %s", ref.VMID, status).WithHint("resume it first")
	}
	h, leave, err := d.channels.join(ctx, d.store.Dir(ref.VMID), *id)
	if err != nil {
		return 0, err
	}
	defer leave()
	// One that has no runner would be waited for without end.
	if _, err := h.State(ctx); err != nil {
		return 0, err
	}
	var env []string
	for _, name := range slices.Sorted(maps.Keys(cmd.Env)) {
		env = append(env, name+"="+cmd.Env[name])
	}
	return h.Exec(ctx, channel.Exec{Argv: cmd.Argv, Env: env}, streams.Stdin, streams.Stdout, streams.Stderr)
}
