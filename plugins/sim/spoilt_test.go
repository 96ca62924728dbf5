package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/plugins/sim/internal/driver"
	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/conformance"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// The test binary is a spoilt plugin when it is called like one: its name says
// what is wrong with it.

// spoils are ways to break a promise, and the checks that must notice.
var spoils = map[string][]string{
	"lawless":      {"hypervisor.owner"},
	"secretive":    {"hypervisor.owner"},
	"willing":      {"hypervisor.pause"},
	"leaving":      {"hypervisor.destroy", "hypervisor.killed-in-destroy"},
	"undeclared":   {"hypervisor.survives"},
	"leaky":        {"hypervisor.many-vms"},
	"ajar":         {"hypervisor.many-vms"},
	"bereft":       {"hypervisor.many-vms"},
	"engrossed":    {"hypervisor.many-vms"},
	"watching":     {"hypervisor.many-vms"},
	"negligent":    {"resilience.tool-hangs"},
	"greedy":       {"hypervisor.vmid-taken"},
	"ruthless":     {"hypervisor.vmid-taken"},
	"murderous":    {"hypervisor.vmid-taken"},
	"restarting":   {"hypervisor.create-twice"},
	"optimistic":   {"hypervisor.get-absent", "hypervisor.destroy"},
	"impatient":    {"hypervisor.power"},
	"fragile":      {"hypervisor.killed-in-create"},
	"makeshift":    {"hypervisor.killed-in-create"},
	"pretending":   {"hypervisor.killed-in-create"},
	"single":       {"hypervisor.crowd", "hypervisor.create-at-once"},
	"hoarding":     {"resilience.many-calls"},
	"parental":     {"resilience.many-calls"},
	"brooding":     {"resilience.cancelled-calls"},
	"exclusive":    {"resilience.concurrent"},
	"dependent":    {"resilience.tool-missing"},
	"waiting":      {"resilience.tool-hangs"},
	"sloppy":       {"hypervisor.create-without-tools"},
	"captive":      {"hypervisor.create-hanging-tools"},
	"lax":          {"network.older-generation"},
	"amnesiac":     {"network.survives"},
	"half-hearted": {"network.killed-in-attach", "network.killed-in-detach", "hypervisor.killed-in-power", "hypervisor.killed-in-destroy"},
	"crowded":      {"network.crowd"},
	"approximate":  {"network.modes", "network.attach"},
	"careless":     {"network.attach-without-tools"},
}

func planFor(t *testing.T, defect string) conformance.Plan {
	t.Helper()
	w := openWorld(t)
	h, n, s, e := options(t, w)
	h.Effects, n.Effects, e.Effects = nil, nil, nil // as for a vendor who cannot count them
	cfg, err := json.Marshal(config{World: w.Dir(), Heartbeat: "100ms"})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), plugin.BinaryPrefix+defect)
	self, err := os.Executable()
	if err == nil {
		err = os.Link(self, path)
	}
	if err != nil {
		content, readErr := os.ReadFile(self) // another file system
		if err = errors.Join(readErr, os.WriteFile(path, content, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return conformance.Plan{
		Binary: conformance.Binary{Path: path, Config: cfg}, Destructive: true,
		Hypervisor: h, Network: n, Secrets: s, Exposure: e,
	}
}

func TestChecksNoticeWhatIsSpoilt(t *testing.T) {
	for defect, ids := range spoils {
		for _, id := range ids {
			t.Run(defect+"/"+id, func(t *testing.T) {
				t.Parallel()
				plan := planFor(t, defect)
				plan.Only = []string{id}
				if !strings.HasPrefix(id, "network.") {
					plan.Kinds = []plugin.Kind{plugin.Hypervisor}
				}
				report, err := plan.Run(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range report.Results {
					t.Logf("%s %s\n got:      %s\n expected: %s", r.ID, r.State, r.Got, r.Expected)
				}
				if report.Failed != 1 || len(report.Results) != 1 {
					t.Error("it was not noticed")
				}
			})
		}
	}
}

// A plugin that runs a tool, and does it well, passes what is about tools.
func TestSkilledPluginPasses(t *testing.T) {
	t.Parallel()
	plan := planFor(t, "skilled")
	plan.Only = []string{"protocol", "resilience.tool-missing", "resilience.tool-hangs", "hypervisor.create-without-tools", "hypervisor.create-hanging-tools", "network.attach-without-tools"}
	conformance.Test(t, plan)
}

// tool is what some spoilt plugins run: it is everywhere and does nothing.
const tool = "true"

// A plugin that starts programs for its VMs, and does it well, passes what is
// about them.
func TestHostPasses(t *testing.T) {
	t.Parallel()
	plan := planFor(t, "hosting")
	plan.Kinds = []plugin.Kind{plugin.Hypervisor}
	plan.Only = []string{"hypervisor.vmid-taken", "hypervisor.destroy", "hypervisor.survives", "hypervisor.many-vms", "hypervisor.killed-in-destroy"}
	conformance.Test(t, plan)
}

// program is what some plugins run for a VM that is on. Who forgets one has it for
// a while only.
type program struct{ dir string }

func (p program) path(vmid uint32) string { return filepath.Join(p.dir, fmt.Sprintf("%d.pid", vmid)) }

func (p program) start(vmid uint32) error {
	if _, err := os.Stat(p.path(vmid)); err == nil {
		return nil
	}
	cmd := exec.Command("sleep", "30") //nolint:noctx // it outlives the call
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return os.WriteFile(p.path(vmid), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600)
}

func (p program) end(vmid uint32) error {
	text, err := os.ReadFile(p.path(vmid))
	if err != nil {
		return nil
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return err
	}
	_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	return os.Remove(p.path(vmid))
}

func spoilt(defect string) plugin.Plugin {
	p := sim()
	p.Name = defect
	p.Kinds = []plugin.Kind{plugin.Hypervisor, plugin.Network}
	switch defect {
	case "dependent", "waiting", "negligent", "sloppy", "captive", "careless", "skilled":
		p.Tools = []plugin.Tool{{Name: tool}}
	case "hosting", "leaving", "murderous":
		p.Confinement.StartsWorkloads = true
	}
	p.Configure = func(_ context.Context, host plugin.HostContext, raw json.RawMessage, _ hclog.Logger) (plugin.Instance, error) {
		var cfg config
		if err := plugin.Decode(raw, &cfg); err != nil {
			return plugin.Instance{}, err
		}
		w, err := world.Open(cfg.World, nil)
		if err != nil {
			return plugin.Instance{}, err
		}
		if defect == "dependent" {
			if _, err := exec.LookPath(tool); err != nil {
				return plugin.Instance{}, errors.New("no tool")
			}
		}
		half := half{dir: host.StateDir, on: defect == "half-hearted"}
		if host.Kind == plugin.Network {
			return plugin.Instance{Service: network.Service(&spoiltNetwork{Network: driver.NewNetwork(w), half: half, defect: defect, known: map[string]network.Attachment{}})}, nil
		}
		return plugin.Instance{Service: hypervisor.Service(&deceptive{
			spoiltHypervisor: &spoiltHypervisor{Hypervisor: driver.NewHypervisor(w, nil), half: half, defect: defect, program: program{host.StateDir}},
			asked:            map[uint32]hypervisor.CreateRequest{},
		})}, nil
	}
	return p
}

// half marks what it is about to change, and does not know what to do when it
// finds a mark.
type half struct {
	dir string
	on  bool
}

func (h half) change(what string, fn func() error) error {
	if !h.on {
		return fn()
	}
	mark := filepath.Join(h.dir, what)
	if _, err := os.Stat(mark); err == nil {
		return fault.New(fault.Conflict, "half of %s was done", what)
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return err
	}
	time.Sleep(50 * time.Millisecond)
	return errors.Join(fn(), os.Remove(mark))
}

type spoiltHypervisor struct {
	*driver.Hypervisor
	half   half
	defect string
	mu     sync.Mutex // of a plugin that does one thing at a time, or remembers
	hoard  [][]byte
	open   []*os.File

	program program
}

func (h *spoiltHypervisor) ListTemplates(ctx context.Context) ([]hypervisor.Template, error) {
	switch h.defect {
	case "hoarding":
		h.mu.Lock()
		h.hoard = append(h.hoard, make([]byte, 4096))
		h.mu.Unlock()
	case "parental":
		h.mu.Lock()
		if h.hoard = append(h.hoard, nil); len(h.hoard)%1000 == 0 {
			_ = exec.Command("sleep", "1000").Start()
		}
		h.mu.Unlock()
	case "brooding":
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < time.Second {
			kept := make([]byte, 64<<10)
			for i := range kept {
				kept[i] = 1
			}
			time.Sleep(time.Hour)
			_ = kept
		}
	case "exclusive":
		if !h.mu.TryLock() {
			return nil, fault.New(fault.Locked, "one at a time")
		}
		defer h.mu.Unlock()
		time.Sleep(time.Millisecond)
	case "waiting":
		_ = exec.Command(tool).Run() //nolint:noctx // that is the defect
	case "skilled":
		if err := runTool(ctx); err != nil {
			return nil, err
		}
	}
	return h.Hypervisor.ListTemplates(ctx)
}

func (h *spoiltHypervisor) CheckHost(ctx context.Context) (hypervisor.HostReport, error) {
	if h.defect == "negligent" {
		_ = exec.Command(tool).Run() //nolint:noctx // that is the defect
	}
	return h.Hypervisor.CheckHost(ctx)
}

// runTool runs the tool as it should be run.
func runTool(ctx context.Context) error {
	if err := exec.CommandContext(ctx, tool).Run(); err != nil {
		return fault.New(fault.Unavailable, "run %s: %w", tool, err)
	}
	return nil
}

func (h *spoiltHypervisor) CreateVM(ctx context.Context, req hypervisor.CreateRequest, progress func(hypervisor.Progress)) (hypervisor.VM, error) {
	old, err := h.Hypervisor.GetVM(ctx, req.Ref)
	there := err == nil
	switch {
	case h.defect == "greedy" && there && old.Ref.Owner != req.Ref.Owner, h.defect == "restarting" && there && old.Ref.Owner == req.Ref.Owner:
		_ = h.Hypervisor.DestroyVM(ctx, old.Ref)
	case h.defect == "fragile" && there && old.Lock != "":
		return hypervisor.VM{}, fault.New(fault.Exists, "half of it is there")
	case h.defect == "fragile":
		return h.Hypervisor.CreateVM(ctx, req, func(p hypervisor.Progress) {
			progress(p)
			time.Sleep(50 * time.Millisecond)
		})
	case h.defect == "single":
		if !h.mu.TryLock() {
			return hypervisor.VM{}, fault.New(fault.Locked, "another create runs")
		}
		defer h.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	case h.defect == "skilled":
		if err := runTool(ctx); err != nil {
			return hypervisor.VM{}, err
		}
	case h.defect == "leaky":
		if f, err := os.Open(os.DevNull); err == nil {
			h.mu.Lock()
			h.open = append(h.open, f)
			h.mu.Unlock()
		}
	}
	vm, err := h.Hypervisor.CreateVM(ctx, req, progress)
	switch {
	case err != nil:
		return vm, err
	case h.defect == "captive":
		_ = exec.Command(tool).Run() //nolint:noctx // that is the defect
	case h.defect == "sloppy":
		if err := runTool(ctx); err != nil {
			return hypervisor.VM{}, err
		}
	}
	return vm, nil
}

func (h *spoiltHypervisor) GetVM(ctx context.Context, ref hypervisor.Ref) (hypervisor.VM, error) {
	vm, err := h.Hypervisor.GetVM(ctx, ref)
	switch {
	case h.defect == "optimistic" && errors.Is(err, fault.NotFound):
		return hypervisor.VM{}, errors.New("vm does not exist")
	case h.defect == "secretive" && err == nil && ref.Owner != "" && ref.Owner != vm.Ref.Owner:
		return hypervisor.VM{}, fault.New(fault.NotFound, "vm %d of this owner does not exist", ref.VMID)
	}
	return vm, err
}

func (h *spoiltHypervisor) SetPower(ctx context.Context, ref hypervisor.Ref, target hypervisor.Power, grace time.Duration) (vm hypervisor.VM, err error) {
	switch h.defect {
	case "lawless":
		if old, err := h.Hypervisor.GetVM(ctx, ref); err == nil {
			ref.Owner = old.Ref.Owner
		}
	case "impatient":
		go func() {
			time.Sleep(200 * time.Millisecond)
			_, _ = h.Hypervisor.SetPower(context.WithoutCancel(ctx), ref, target, grace)
		}()
		return h.Hypervisor.GetVM(ctx, ref)
	case "willing":
		if vm, err := h.Hypervisor.GetVM(ctx, ref); err == nil && target == hypervisor.PowerPaused && vm.Power == hypervisor.PowerOff {
			return vm, nil
		}
	}
	err = h.half.change("power", func() error {
		vm, err = h.Hypervisor.SetPower(ctx, ref, target, grace)
		return err
	})
	return vm, errors.Join(err, h.run(ref.VMID, err == nil && target == hypervisor.PowerOn))
}

// run starts or ends the program of a VM.
func (h *spoiltHypervisor) run(vmid uint32, on bool) error {
	switch {
	case h.defect != "hosting" && h.defect != "leaving" && h.defect != "undeclared" && h.defect != "murderous":
		return nil
	case on:
		return h.program.start(vmid)
	case h.defect == "leaving":
		return os.RemoveAll(h.program.path(vmid)) // and forget it
	}
	return h.program.end(vmid)
}

func (h *spoiltHypervisor) DestroyVM(ctx context.Context, ref hypervisor.Ref) error {
	return h.half.change("destroy", func() error {
		return cmp.Or(h.Hypervisor.DestroyVM(ctx, ref), h.run(ref.VMID, false))
	})
}

type spoiltNetwork struct {
	*driver.Network
	half   half
	defect string
	mu     sync.Mutex
	known  map[string]network.Attachment
	calls  int
}

func (n *spoiltNetwork) Attach(ctx context.Context, req network.AttachRequest) (a network.Attachment, err error) {
	switch n.defect {
	case "lax":
		if old, err := n.Network.ListAttachments(ctx, req.SandboxID); err == nil && len(old) > 0 {
			req.Generation = max(req.Generation, old[0].InForce.Generation)
		}
	case "crowded":
		n.mu.Lock()
		n.calls++
		full := n.calls > 10
		n.mu.Unlock()
		if full {
			return network.Attachment{}, fault.New(fault.Exhausted, "ten sandboxes are enough")
		}
	case "approximate":
		req.Allow = nil
		req.Mode = network.ModeNAT
		req.MAC = "02:00:00:00:00:00"
	case "skilled":
		if err := runTool(ctx); err != nil {
			return network.Attachment{}, err
		}
	}
	err = n.half.change("attach", func() error {
		a, err = n.Network.Attach(ctx, req)
		return err
	})
	if err == nil && n.defect == "careless" {
		if err := runTool(ctx); err != nil {
			return network.Attachment{}, err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known[req.SandboxID] = a; err != nil {
		delete(n.known, req.SandboxID)
	}
	return a, err
}

func (n *spoiltNetwork) Detach(ctx context.Context, id string) error {
	n.mu.Lock()
	delete(n.known, id)
	n.mu.Unlock()
	return n.half.change("detach", func() error { return n.Network.Detach(ctx, id) })
}

func (n *spoiltNetwork) ListAttachments(ctx context.Context, id string) (out []network.Attachment, err error) {
	if n.defect != "amnesiac" {
		return n.Network.ListAttachments(ctx, id)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, a := range n.known {
		if id == "" || name == id {
			out = append(out, a)
		}
	}
	return out, nil
}
