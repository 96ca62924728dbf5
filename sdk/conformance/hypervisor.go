package conformance

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// HypervisorOptions fit the suite to a host.
type HypervisorOptions struct {
	// Template is one that must be there, by name or VMID. "": the first that is
	// whole. Where there is none hypervisor.create fails and others are skipped.
	Template    string
	MemoryBytes uint64 // of each VM, 0: 256 MiB
	// NIC makes what a VM's network card needs on the host, as the network
	// plugin would, and names it. nil: a card with nothing behind it.
	NIC func(ctx context.Context, vmid uint32, iface string) (hypervisor.NIC, error)
	// Taps has the suite make a tap for each VM, as the network plugin would
	// for a hypervisor that does not make it. Needs root and iproute2.
	Taps bool
	// Guest: the template's guest answers the plugin, so programs can be run in it
	// and disks looked at. Such a guest may take long to come up.
	Guest   bool
	Effects Effects
}

// Hypervisor checks a hypervisor by its contract.
func Hypervisor(open Open[hypervisor.Driver], opts HypervisorOptions) []Check {
	s := &hypervisorSuite{open: open, opts: opts, run: unique()}
	return bind(plugin.Hypervisor, allHypervisorRules(), s.check)
}

var hypervisorRules = []ruled[*machines]{
	reads("hypervisor.check-host", 2, "reads the host report: range of VMIDs, pattern of interfaces, resources, findings",
		"What is missing on this host, each finding with its fix. Changes nothing.", (*machines).checkHost),
	reads("hypervisor.templates", 2, "lists templates; one that was named must be there and whole",
		"Broken templates too, with findings that say why.", (*machines).templates),
	reads("hypervisor.get-absent", 2, "asks for a VM that is not there",
		"NOT_FOUND only when the VM is certainly gone.", (*machines).getAbsent),
	changes("hypervisor.absent-vm", 2, "powers and destroys a VM that is not there",
		"Gone is success", (*machines).absent),
	changes("hypervisor.create", 2, "creates a VM and compares the answer, what is read back, and the progress; not what is in its seed and its disk",
		"Clone + resources + NIC + seed + owner mark in one call. VM stays off.", (*machines).create),
	changes("hypervisor.create-twice", 2, "repeats a create, once with the VM off and once with it on",
		"A repeat converges and answers the current state", (*machines).createTwice),
	changes("hypervisor.create-at-once", 2, "creates three VMs at the same time, one of them by two calls, through two processes",
		"The same call may come twice at once, also to two processes.", (*machines).createAtOnce),
	changes("hypervisor.create-unknown-template", 2, "creates from a template that does not exist",
		"On failure nothing stays behind.", (*machines).createUnknown),
	changes("hypervisor.create-given-up", 2, "cancels a create before and in its middle, looks for what stays of it, then creates again",
		"On failure nothing stays behind.", (*machines).createGivenUp),
	changes("hypervisor.vmid-taken", 2, "creates on a VMID that another owner has, once with that VM off and once with it on",
		"The VMID is the core's choice: EXISTS means it belongs to somebody else.", (*machines).taken),
	changes("hypervisor.list", 2, "lists by prefix, by owner, and with foreign VMs",
		"Every VM with an owner mark of this host; include_foreign adds the rest.", (*machines).list),
	changes("hypervisor.power", 2, "switches a VM on and off, each twice",
		"Answers when the target is reached.", (*machines).power),
	changes("hypervisor.pause", 2, "pauses and resumes, where the hypervisor pauses",
		"Answers when the target is reached.", (*machines).pause),
	changes("hypervisor.shutdown", 2, "shuts a VM down with a grace of one second, twice",
		"ask the guest, then hard after grace", (*machines).shutdown),
	changes("hypervisor.unsupported-power", 2, "asks for a state that does not exist, and for hibernation",
		"What a plugin cannot do is UNSUPPORTED, at once and without a change.", (*machines).hibernate),
	changes("hypervisor.owner", 2, "reads, powers and destroys a VM under other owner marks",
		"PRECONDITION unless the stored owner equals ref.expect_owner.", (*machines).foreign),
	changes("hypervisor.destroy", 2, "destroys a running VM, and again, and looks for the programs that came with it",
		"Gone is success, but whatever is left of it, such as a program that runs on, is ended and freed.", (*machines).destroy),
	changes("hypervisor.stats", 2, "asks for counters of VMs that are on, off and unknown",
		"Leaves out VMs that are off or unknown.", (*machines).stats),
	changes("hypervisor.console", 2, "reads the console, where the hypervisor keeps it",
		"What the guest printed on its console, newest last, at most 64 KiB.", (*machines).console),
	changes("hypervisor.survives", 2, "ends and then kills the plugin's process beside a running VM; whose programs go on says so in its Confinement",
		"What a plugin made is there, and goes on, when the process that made it has ended.", (*machines).survives),
}

// allHypervisorRules also has those of what a hypervisor may lack.
func allHypervisorRules() []ruled[*machines] {
	return slices.Concat(hypervisorRules, snapshotRules, volumeRules, execRules)
}

type hypervisorSuite struct {
	open Open[hypervisor.Driver]
	opts HypervisorOptions
	run  string
	next atomic.Uint32

	nextVolume atomic.Uint32
}

// machines is the state of one check.
type machines struct {
	*hypervisorSuite
	hypervisor.Driver
	process *opened[hypervisor.Driver]
	host    hypervisor.HostReport
	mu      sync.Mutex
	// mu guards:
	made    []hypervisor.Ref
	taps    []string
	volumes []hypervisor.VolumeRef
}

func (s *hypervisorSuite) check(ctx context.Context, _ Rule, fn func(*machines, context.Context) error) (err error) {
	process, err := s.open.first(ctx)
	if err != nil {
		return err
	}
	defer func() { process.close() }()
	m := &machines{hypervisorSuite: s, Driver: process.driver, process: process}
	if m.host, err = m.CheckHost(ctx); err != nil {
		return fmt.Errorf("check host: %w", err)
	}
	defer func() { err = errors.Join(err, m.cleanUp(ctx)) }()
	return fn(m, ctx)
}

func (m *machines) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	var errs []error
	for _, ref := range m.made {
		if err := m.DestroyVM(ctx, ref); err != nil {
			errs = append(errs, fmt.Errorf("clean up vm %d: %w", ref.VMID, err))
		}
	}
	for _, ref := range m.volumes {
		if k, ok := m.Driver.(hypervisor.VolumeKeeper); ok {
			if err := k.DeleteVolume(ctx, ref); err != nil {
				errs = append(errs, fmt.Errorf("clean up volume %s: %w", ref.ID, err))
			}
		}
	}
	for _, name := range m.taps {
		errs = append(errs, tap(ctx, "del", name))
	}
	return errors.Join(errs...)
}

// tap makes or removes one.
func tap(ctx context.Context, verb, name string) error {
	out, err := exec.CommandContext(ctx, "ip", "tuntap", verb, "dev", name, "mode", "tap").CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip tuntap %s %s: %w: %s", verb, name, err, out)
	}
	return nil
}

func (m *machines) prefix() string { return "agentlab:conformance-" + m.run + "/" }

// unused names a VM that does not exist. It is destroyed after the check.
func (m *machines) unused(ctx context.Context) (hypervisor.Ref, error) {
	all, err := m.ListVMs(ctx, "", true)
	if err != nil {
		return hypervisor.Ref{}, fmt.Errorf("list vms: %w", err)
	}
	vmid := m.host.VMIDLast - m.next.Add(1) + 1
	for slices.ContainsFunc(all, func(v hypervisor.VM) bool { return v.Ref.VMID == vmid }) {
		vmid = m.host.VMIDLast - m.next.Add(1) + 1
	}
	if vmid < m.host.VMIDFirst {
		return hypervisor.Ref{}, fmt.Errorf("%w: a vmid that is free", ErrSkipped)
	}
	ref := hypervisor.Ref{RequestID: "conformance", VMID: vmid, Owner: fmt.Sprintf("%ssbx_%d", m.prefix(), vmid)}
	m.mu.Lock()
	m.made = append(m.made, ref)
	m.mu.Unlock()
	return ref, nil
}

// request asks for such a VM.
func (m *machines) request(ctx context.Context) (hypervisor.CreateRequest, error) {
	template, err := m.template(ctx)
	if err != nil {
		return hypervisor.CreateRequest{}, err
	}
	ref, err := m.unused(ctx)
	if err != nil {
		return hypervisor.CreateRequest{}, err
	}
	vmid := ref.VMID
	nic := hypervisor.NIC{MAC: fmt.Sprintf("02:c0:f0:00:%02x:%02x", vmid>>8&0xff, vmid&0xff)}
	iface := fmt.Sprintf(m.host.InterfacePattern, vmid)
	switch {
	case m.opts.NIC != nil:
		if nic, err = m.opts.NIC(ctx, vmid, iface); err != nil {
			return hypervisor.CreateRequest{}, fmt.Errorf("make network card: %w", err)
		}
	case m.opts.Taps:
		if err := tap(ctx, "add", iface); err != nil {
			return hypervisor.CreateRequest{}, err
		}
		nic.Tap = iface
		m.mu.Lock()
		m.taps = append(m.taps, iface)
		m.mu.Unlock()
	}
	memory := m.opts.MemoryBytes
	if memory == 0 {
		memory = 256 << 20
	}
	return hypervisor.CreateRequest{
		Ref: ref, Name: fmt.Sprintf("conformance-%d", vmid), Template: template, Cores: 1, MemoryBytes: memory, NIC: nic,
		Seed: hypervisor.Seed{
			UserData:      []byte(userData(vmid)),
			MetaData:      fmt.Appendf(nil, `{"instance-id":"conformance-%d"}`, vmid),
			NetworkConfig: []byte(`{"version":2}`),
		},
	}, nil
}

func (m *machines) template(ctx context.Context) (string, error) {
	if m.opts.Template != "" {
		return m.opts.Template, nil
	}
	list, err := m.ListTemplates(ctx)
	if err != nil {
		return "", fmt.Errorf("list templates: %w", err)
	}
	for _, t := range list {
		if isWhole(t) {
			return t.Name, nil
		}
	}
	return "", fmt.Errorf("%w: %w", ErrSkipped, errNoTemplate)
}

var errNoTemplate = errors.New("a template that is whole")

func isWhole(t hypervisor.Template) bool {
	return !slices.ContainsFunc(t.Findings, func(f plugin.Finding) bool { return f.Level == plugin.LevelMissing })
}

// vm makes one.
func (m *machines) vm(ctx context.Context) (hypervisor.CreateRequest, hypervisor.VM, error) {
	req, err := m.request(ctx)
	if err != nil {
		return req, hypervisor.VM{}, err
	}
	vm, err := m.CreateVM(ctx, req, nil)
	if err != nil {
		return req, vm, fmt.Errorf("create vm %d: %w", req.Ref.VMID, err)
	}
	return req, vm, nil
}

// running makes one that is on.
func (m *machines) running(ctx context.Context) (hypervisor.Ref, error) {
	req, _, err := m.vm(ctx)
	if err != nil {
		return req.Ref, err
	}
	return req.Ref, m.turn(ctx, req.Ref, hypervisor.PowerOn, hypervisor.PowerOn)
}

// turn sets the power and checks the answer and what is read back.
func (m *machines) turn(ctx context.Context, ref hypervisor.Ref, target, want hypervisor.Power) error {
	answer, err := m.SetPower(ctx, ref, target, time.Second)
	if err != nil {
		return fmt.Errorf("set power of vm %d to %s: %w", ref.VMID, target, err)
	}
	got, err := m.GetVM(ctx, ref)
	if err != nil {
		return fmt.Errorf("get vm %d: %w", ref.VMID, err)
	}
	if answer.Power != want || got.Power != want {
		return saw("after set power to %s: the answer says %q, get says %q", target, answer.Power, got.Power).want("%q", want)
	}
	return nil
}

// wantGone checks that the VM is certainly not there.
func (m *machines) wantGone(ctx context.Context, ref hypervisor.Ref) error {
	_, err := m.GetVM(ctx, ref)
	if err := wantClass("get of a vm that is gone", err, fault.NotFound); err != nil {
		return err
	}
	all, err := m.ListVMs(ctx, "", true)
	if err != nil {
		return fmt.Errorf("list vms: %w", err)
	}
	if slices.ContainsFunc(all, func(v hypervisor.VM) bool { return v.Ref.VMID == ref.VMID }) {
		return saw("vm %d is not found and yet listed", ref.VMID).want("get and list to agree")
	}
	return nil
}

func (m *machines) checkHost(context.Context) error {
	h := m.host
	name := fmt.Sprintf(h.InterfacePattern, h.VMIDLast)
	switch {
	case h.VMIDFirst == 0 || h.VMIDLast < h.VMIDFirst:
		return saw("vmids %d to %d", h.VMIDFirst, h.VMIDLast).want("a range that begins above 0")
	case strings.Contains(name, "%!") || !strings.Contains(name, fmt.Sprint(h.VMIDLast)) || len(name) > 15:
		return saw("pattern %q makes the interface name %q", h.InterfacePattern, name).want("a name with the VMID in it, of 15 bytes at most")
	case h.Cores == 0 || h.MemoryBytes == 0 || h.MemoryFreeBytes > h.MemoryBytes:
		return saw("resources are %d cores, %d bytes, %d of them free", h.Cores, h.MemoryBytes, h.MemoryFreeBytes).want("what this host has")
	}
	return checkFindings(h.Findings)
}

func checkFindings(list []plugin.Finding) error {
	for _, f := range list {
		switch {
		case f.ID == "" || f.Message == "":
			return saw("a finding has id %q and message %q", f.ID, f.Message).want("an id and a message")
		case f.Level != plugin.LevelOK && f.Level != plugin.LevelWarning && f.Level != plugin.LevelMissing:
			return saw("finding %s has level %q", f.ID, f.Level).want("ok, warning or missing")
		case f.Level == plugin.LevelMissing && f.Fix == "":
			return saw("finding %s says that something is missing, and has no fix", f.ID).want("what to do about it")
		}
	}
	return nil
}

func (m *machines) templates(ctx context.Context) error {
	list, err := m.ListTemplates(ctx)
	if err != nil {
		return fmt.Errorf("list templates: %w", err)
	}
	if len(list) == 0 && m.opts.Template == "" {
		return fmt.Errorf("%w: a template", ErrSkipped)
	}
	found := m.opts.Template == ""
	var all []string
	for _, t := range list {
		found = found || isWhole(t) && (t.Name == m.opts.Template || fmt.Sprint(t.VMID) == m.opts.Template)
		all = append(all, t.Name)
		if t.Name == "" {
			return saw("template %d has no name", t.VMID).want("a name")
		}
		if err := checkFindings(t.Findings); err != nil {
			return fmt.Errorf("template %s: %w", t.Name, err)
		}
	}
	if !found {
		return saw("templates are %q", all).want("%s among them, without a finding that something is missing", m.opts.Template)
	}
	return nil
}
