package scheduler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// world is what exists whatever becomes of the scheduler: VMs and attachments.
type world struct {
	mu sync.Mutex
	// mu guards:
	vms       map[uint32]*machine
	nets      map[string]network.AttachRequest
	effects   []string // what really changed, in order
	fails     map[string][]error
	findings  []plugin.Finding // of CheckHost
	createFor time.Duration
	startFor  time.Duration
	busy      map[string]int // calls that go on, by name
	mostBusy  map[string]int // at the same time, so far
	flushed   bool           // the host's rules are gone
	linkless  bool           // so are links that Attach has to make anew
	last      uint32
}

// machine is one VM; its seed is the token itself.
type machine struct {
	owner string
	power hypervisor.Power
	seed  string
	nic   hypervisor.NIC
	guest guest
}

func newWorld() *world {
	return &world{
		vms: map[uint32]*machine{}, nets: map[string]network.AttachRequest{}, fails: map[string][]error{}, last: 1005,
		busy: map[string]int{}, mostBusy: map[string]int{},
	}
}

// failing makes the next calls of that name fail with these errors.
func (w *world) failing(call string, errs ...error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fails[call] = append(w.fails[call], errs...)
}

// finds makes CheckHost find this from now on.
func (w *world) finds(findings ...plugin.Finding) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.findings = findings
}

// planned gives the next error meant for the call. The caller holds mu.
func (w *world) planned(call string) error {
	errs := w.fails[call]
	if len(errs) == 0 {
		return nil
	}
	w.fails[call] = errs[1:]
	return errs[0]
}

func (w *world) effect(format string, args ...any) {
	w.effects = append(w.effects, fmt.Sprintf(format, args...))
}

func (w *world) count(effect string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, e := range w.effects {
		if strings.HasPrefix(e, effect) {
			n++
		}
	}
	return n
}

// mine lists the VMIDs of VMs with the owner prefix.
func (w *world) mine(prefix string) []uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []uint32
	for _, id := range slices.Sorted(maps.Keys(w.vms)) {
		if strings.HasPrefix(w.vms[id].owner, prefix) {
			out = append(out, id)
		}
	}
	return out
}

func (w *world) machine(vmid uint32) (machine, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, ok := w.vms[vmid]
	if !ok {
		return machine{}, false
	}
	return *m, true
}

func (w *world) setPower(vmid uint32, p hypervisor.Power) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m, ok := w.vms[vmid]; ok { // a guest may have gone with its VM
		m.power = p
	}
}

// drivers is what one life of the daemon sees of the world.
type drivers struct {
	*world
	crash *crasher
}

func (d *drivers) CheckHost(context.Context) (hypervisor.HostReport, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return hypervisor.HostReport{
		VMIDFirst: 1000, VMIDLast: d.last, InterfacePattern: "tap%di0", Findings: d.findings,
	}, d.planned("CheckHost")
}

func (d *drivers) ListTemplates(context.Context) ([]hypervisor.Template, error) { return nil, nil }

func (d *drivers) ListVMs(_ context.Context, prefix string, _ bool) (out []hypervisor.VM, err error) {
	err = d.crash.around(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		for id, m := range d.vms {
			if strings.HasPrefix(m.owner, prefix) {
				out = append(out, m.vm(id))
			}
		}
		return d.planned("ListVMs")
	})
	return out, err
}

func (m *machine) vm(id uint32) hypervisor.VM {
	return hypervisor.VM{Ref: hypervisor.Ref{VMID: id, Owner: m.owner}, Power: m.power, NIC: m.nic}
}

func (d *drivers) GetVM(_ context.Context, ref hypervisor.Ref) (vm hypervisor.VM, err error) {
	err = d.crash.around(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := d.planned("GetVM"); err != nil {
			return err
		}
		m, ok := d.vms[ref.VMID]
		if !ok {
			return fault.New(fault.NotFound, "no vm %d", ref.VMID)
		}
		vm = m.vm(ref.VMID)
		return nil
	})
	return vm, err
}

func (d *drivers) GetStats(context.Context, []uint32) (map[uint32]hypervisor.Stats, error) {
	return nil, nil
}

func (d *drivers) CreateVM(ctx context.Context, req hypervisor.CreateRequest, progress func(hypervisor.Progress)) (vm hypervisor.VM, err error) {
	err = d.crash.around(func() error {
		progress(hypervisor.Progress{Phase: "clone disk", Fraction: 0.5})
		defer d.enter("create")()
		sleep(ctx, d.createFor)
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := d.planned("CreateVM"); err != nil {
			return err
		}
		if m, ok := d.vms[req.Ref.VMID]; ok {
			if m.owner != req.Ref.Owner {
				return fault.New(fault.Exists, "vm %d is somebody else's", req.Ref.VMID)
			}
			vm = m.vm(req.Ref.VMID) // made by an earlier call, with its seed
			return nil
		}
		m := &machine{owner: req.Ref.Owner, power: hypervisor.PowerOff, seed: string(req.Seed.UserData), nic: req.NIC}
		d.vms[req.Ref.VMID] = m
		d.effect("create %d", req.Ref.VMID)
		vm = m.vm(req.Ref.VMID)
		return nil
	})
	return vm, err
}

// enter counts a call that takes its time, until leave.
func (w *world) enter(call string) (leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy[call]++
	w.mostBusy[call] = max(w.mostBusy[call], w.busy[call])
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.busy[call]--
	}
}

func (d *drivers) SetPower(ctx context.Context, ref hypervisor.Ref, target hypervisor.Power, _ time.Duration) (vm hypervisor.VM, err error) {
	err = d.crash.around(func() error {
		if target == hypervisor.PowerOn {
			defer d.enter("start")()
			sleep(ctx, d.startFor)
			if err := ctx.Err(); err != nil {
				return fault.New(fault.ClassOf(err), "start: %w", err)
			}
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := d.planned("SetPower"); err != nil {
			return err
		}
		m, err := d.owned(ref)
		if err != nil {
			return err
		}
		if target == hypervisor.PowerShutdown {
			target = hypervisor.PowerOff
		}
		if m.power != target {
			m.power = target
			d.effect("power %s %d", target, ref.VMID)
		}
		vm = m.vm(ref.VMID)
		return nil
	})
	return vm, err
}

// owned is the VM if it is the caller's. The caller holds mu.
func (d *drivers) owned(ref hypervisor.Ref) (*machine, error) {
	m, ok := d.vms[ref.VMID]
	if !ok {
		return nil, fault.New(fault.NotFound, "no vm %d", ref.VMID)
	}
	if m.owner != ref.Owner {
		d.effect("ASKED TO TOUCH FOREIGN %d", ref.VMID)
		return nil, fault.New(fault.Precondition, "vm %d has another owner", ref.VMID)
	}
	return m, nil
}

func (d *drivers) DestroyVM(_ context.Context, ref hypervisor.Ref) error {
	return d.crash.around(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := d.planned("DestroyVM"); err != nil {
			return err
		}
		if _, ok := d.vms[ref.VMID]; !ok {
			return nil
		}
		if _, err := d.owned(ref); err != nil {
			return err
		}
		delete(d.vms, ref.VMID)
		d.effect("destroy %d", ref.VMID)
		return nil
	})
}

func (d *drivers) Console(context.Context, hypervisor.Ref) ([]byte, error) {
	return []byte("boot\x1b[2J\nKernel panic - not syncing\n"), nil
}

// netDriver gives the network half of drivers; CheckHost has another shape.
type netDriver struct{ *drivers }

func (d netDriver) CheckHost(context.Context, network.Host) ([]plugin.Finding, error) {
	return nil, nil
}

func (d netDriver) ApplyHost(context.Context, network.Host) (r network.ApplyReport, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.planned("ApplyHost"); err != nil {
		return r, err
	}
	if d.flushed {
		d.flushed = false
		r.Changes = []string{"put the rules in force"}
	}
	return r, nil
}

func (d netDriver) Attach(_ context.Context, req network.AttachRequest) (a network.Attachment, err error) {
	err = d.crash.around(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := d.planned("Attach"); err != nil {
			return err
		}
		if now, ok := d.nets[req.SandboxID]; ok && (now.Generation > req.Generation || now.Interface != req.Interface) {
			return fault.New(fault.Conflict, "%s is attached as %s", req.SandboxID, now.Interface)
		}
		d.nets[req.SandboxID] = req
		d.effect("attach %s", req.Interface)
		a.InForce, a.InterfaceMade = req, d.linkless
		return nil
	})
	return a, err
}

func (d netDriver) Detach(_ context.Context, sandboxID string) error {
	return d.crash.around(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := d.planned("Detach"); err != nil {
			return err
		}
		if req, ok := d.nets[sandboxID]; ok {
			delete(d.nets, sandboxID)
			d.effect("detach %s", req.Interface)
		}
		return nil
	})
}

func (d netDriver) ListAttachments(context.Context, string) ([]network.Attachment, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []network.Attachment
	for _, req := range d.nets {
		out = append(out, network.Attachment{InForce: req})
	}
	return out, nil
}
