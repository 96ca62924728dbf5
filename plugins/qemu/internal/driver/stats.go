package driver

import (
	"context"
	"errors"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/tap"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// minWindow keeps a second caller from shortening the first one's window to
// noise: samples closer than this are answered from the earlier pair.
const minWindow = 500 * time.Millisecond

// sample is the CPU time of one program at one moment. It may be lost: the next
// answer then has a window of 0.
type sample struct {
	pid      int
	start    uint64
	ticks    uint64
	at       time.Time
	fraction float64
	window   time.Duration
}

// GetStats implements hypervisor.Driver.
func (d *Driver) GetStats(ctx context.Context, vmids []uint32) (map[uint32]hypervisor.Stats, error) {
	out := map[uint32]hypervisor.Stats{}
	taps := map[uint32]string{}
	for _, vmid := range vmids {
		v, err := d.store.Load(vmid)
		if errors.Is(err, fault.NotFound) || errors.Is(err, record.ErrUnreadable) {
			continue
		}
		if err != nil {
			return nil, err
		}
		stats, ok, err := d.programStats(v)
		if err != nil {
			return nil, err
		}
		if ok {
			out[vmid], taps[vmid] = stats, v.NIC.Tap
		}
	}
	var names []string
	for _, name := range taps {
		names = append(names, name)
	}
	counters, err := tap.Read(names)
	if err != nil {
		return nil, err
	}
	for vmid, name := range taps {
		s := out[vmid]
		s.NetRxBytes, s.NetTxBytes = counters[name].Received, counters[name].Sent
		out[vmid] = s
	}
	return out, ctx.Err()
}

// programStats is false for a VM that is off.
func (d *Driver) programStats(v *record.VM) (hypervisor.Stats, bool, error) {
	id, err := d.program(v)
	if err != nil || id == nil || v.Run.State != record.RunRunning {
		return hypervisor.Stats{}, false, err
	}
	st, err := procfs.ReadStat(id.PID)
	if errors.Is(err, procfs.ErrGone) || err == nil && st.StartTicks != id.StartTicks {
		return hypervisor.Stats{}, false, nil
	}
	if err != nil {
		return hypervisor.Stats{}, false, fault.New(fault.Unavailable, "read stats of vm %d: %w", v.VMID, err)
	}
	s := d.measure(v, st, id.PID)
	return hypervisor.Stats{CPUFraction: s.fraction, Window: s.window, MemoryUsedBytes: st.RSSBytes}, true, nil
}

func (d *Driver) measure(v *record.VM, st procfs.Stat, pid int) sample {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	old, known := d.samples[v.VMID]
	known = known && old.pid == pid && old.start == st.StartTicks
	if known && now.Sub(old.at) < minWindow {
		return old
	}
	s := sample{pid: pid, start: st.StartTicks, ticks: st.CPUTicks, at: now}
	if known {
		s.window = now.Sub(old.at)
		used := float64(st.CPUTicks-old.ticks) / procfs.TicksPerSecond
		s.fraction = min(1, used/s.window.Seconds()/float64(v.Cores))
	}
	d.samples[v.VMID] = s
	return s
}

// forget drops the sample of a VM that is off or gone.
func (d *Driver) forget(vmid uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.samples, vmid)
}
