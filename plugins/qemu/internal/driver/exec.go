package driver

import (
	"context"
	"maps"
	"slices"

	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

var _ hypervisor.GuestExecutor = (*Driver)(nil)

// Exec implements hypervisor.GuestExecutor. It holds the VM's channel and not
// the VM: a program that runs for long keeps nobody from stopping the VM.
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
	h, err := d.channel(ctx, ref.VMID)
	if err != nil {
		return 0, err
	}
	defer h.Close()
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

// channelHost is the VM's channel, held by one caller at a time: QEMU lets one
// client in, and keeps others waiting.
type channelHost struct {
	*channel.Host
	leave func()
}

// Close hangs up.
func (h channelHost) Close() {
	_ = h.Host.Close()
	h.leave()
}

func (d *Driver) channel(ctx context.Context, vmid uint32) (channelHost, error) {
	leave, err := d.channels.lock(ctx, vmid)
	if err != nil {
		return channelHost{}, fault.New(fault.Locked, "the channel to the guest of vm %d is in use: %w", vmid, ctx.Err())
	}
	short, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	conn, err := qmp.Connect(short, d.store.Dir(vmid), channelName)
	if err != nil {
		leave()
		return channelHost{}, fault.New(fault.Unavailable, "connect to the guest of vm %d: %w", vmid, err)
	}
	return channelHost{channel.New(conn), leave}, nil
}
