package scheduler

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/secret"
)

const (
	stepReserve  = "reserve"
	mostBurned   = 20 // VMIDs that one sandbox may meet and lose
	defaultReady = 10 * time.Minute
	tokenBytes   = 32
)

func (s *Scheduler) createSandbox() kind {
	call := s.cfg.Timing.CallTimeout
	return kind{
		steps: []step{
			{name: stepReserve, run: reserve, timeout: call, retries: modest},
			{name: "attach-network", run: attachNetwork, undo: detachNetwork, timeout: call, retries: modest},
			{name: "create-vm", prepare: tryVM, run: createVM, undo: cutAndRemoveVM, retries: modest},
			{name: "start-vm", prepare: extendTokens, run: startVM, retries: modest},
			{name: "wait-hello", prepare: extendTokens, run: waitHello, limit: readyLimit},
		},
		done:   sandboxReady,
		failed: sandboxFailed,
	}
}

// reserve commits VMID, address, MAC and interface before any plugin is asked
// to make something.
func reserve(ctx context.Context, w *work) (state.Commit, error) {
	host, err := w.fit(ctx)
	if err != nil {
		return state.Commit{}, err
	}
	_, err = w.cfg.Store.Reserve(ctx, w.sb.ID, w.rangeOf(host))
	return w.sandboxTo(lab.SandboxProvisioning, ""), err
}

func (s *Scheduler) rangeOf(host hypervisor.HostReport) state.Range {
	return state.Range{
		First: host.VMIDFirst, Last: host.VMIDLast, Subnet: s.cfg.Subnet, HostAddr: s.cfg.HostAddress,
		InterfacePattern: host.InterfacePattern, CreatesInterface: host.CreatesInterface,
	}
}

// attachNetwork puts the policy in force while there is no VM yet. After a
// burned VMID the interface is another one, so the earlier one goes first.
func attachNetwork(ctx context.Context, w *work) (state.Commit, error) {
	req, err := w.attachRequest(ctx, w.sb)
	if err != nil {
		return state.Commit{}, err
	}
	req.RequestID = w.requestID()
	if err := w.hostApplied(ctx); err != nil {
		return state.Commit{}, err
	}
	if w.sb.Generation > 1 {
		if err := detachNetwork(ctx, w); err != nil {
			return state.Commit{}, fmt.Errorf("detach earlier interface: %w", err)
		}
	}
	_, err = w.attach(ctx, req)
	return state.Commit{}, err
}

func detachNetwork(ctx context.Context, w *work) error { return w.detach(ctx, w.sb.ID) }

// tryVM notes that a VM may exist from now on, and makes a new token for each
// attempt: the store keeps only its hash.
func tryVM(w *work) state.Commit {
	var b [tokenBytes]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	token := base64.RawURLEncoding.EncodeToString(b[:])
	w.token = secret.New(token)
	expires := time.Now().Add(w.cfg.Timing.CreateTimeout + w.cfg.Timing.TokenTTL)
	return state.Commit{Attempted: []string{w.sb.ID}, Tokens: []state.Token{
		{SandboxID: w.sb.ID, Hash: sha256.Sum256([]byte(token)), Expires: expires},
	}}
}

func createVM(ctx context.Context, w *work) (state.Commit, error) {
	if w.sb.VMID == 0 { // burned just before a restart
		return state.Commit{}, &jump{to: stepReserve}
	}
	release, err := w.toCreate(ctx)
	if err != nil {
		return state.Commit{}, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timing.CreateTimeout)
	defer cancel()
	req, err := w.createRequest()
	if err != nil {
		return state.Commit{}, err
	}
	_, err = w.cfg.Hypervisor.CreateVM(ctx, req, w.progress(ctx))
	if errors.Is(err, fault.Exists) {
		return w.burn(ctx, err)
	}
	return w.sandboxTo(lab.SandboxBooting, ""), err
}

// burn gives up a VMID that is somebody else's, and never goes near it again.
func (w *work) burn(ctx context.Context, cause error) (state.Commit, error) {
	n, err := w.cfg.Store.BurnedFor(ctx, w.sb.ID)
	if err != nil {
		return state.Commit{}, err
	}
	if n >= mostBurned {
		return state.Commit{}, fault.New(fault.Exhausted, "%d VMIDs in a row belong to other VMs: %w", n+1, cause).
			WithHint("give the hypervisor plugin a VMID range of its own")
	}
	// On its own: whatever comes in between, no clean-up may look at this VMID.
	err = w.cfg.Store.BurnVMID(ctx, state.Burn{SandboxID: w.sb.ID, VMID: w.sb.VMID, Reason: cause.Error()})
	if err != nil {
		return state.Commit{}, err
	}
	return state.Commit{}, &jump{to: stepReserve, cause: cause}
}

func (w *work) createRequest() (hypervisor.CreateRequest, error) {
	spec := w.sb.Spec
	cidr := netip.PrefixFrom(w.sb.Address, w.cfg.Subnet.Bits())
	var dns []string
	for _, a := range w.cfg.DNS {
		dns = append(dns, a.String())
	}
	seed, err := w.cfg.RenderSeed(SeedInput{
		Hostname: w.sb.Name, SandboxID: w.sb.ID, VMID: w.sb.VMID, User: spec.SSHUser, AuthorizedKey: spec.SSHKey,
		MAC: w.sb.MAC, AddressCIDR: cidr, Gateway: w.cfg.HostAddress, DNS: w.cfg.DNS, Controller: w.cfg.GuestURL, Token: w.token,
	})
	if err != nil {
		return hypervisor.CreateRequest{}, fmt.Errorf("render seed: %w", err)
	}
	return hypervisor.CreateRequest{
		Ref: w.ref(), Name: w.sb.Name, Template: spec.Template, Cores: spec.Cores,
		MemoryBytes: spec.MemoryMB << 20, RootDiskBytes: spec.DiskGB << 30,
		NIC: hypervisor.NIC{
			Bridge: w.cfg.Bridge, MAC: w.sb.MAC, Tap: w.sb.Interface, AddressCIDR: cidr.String(),
			Gateway: w.cfg.HostAddress.String(), DNS: dns,
		},
		Seed: seed,
	}, nil
}

// extendTokens begins the tokens' time when the VM is started, since its creation
// may have waited in a queue, and again when we wait for its hello, also after a
// restart of ours: a guest that found nobody to talk to is still welcome.
func extendTokens(w *work) state.Commit {
	return state.Commit{Extend: []state.Extension{{SandboxID: w.sb.ID, Expires: time.Now().Add(w.cfg.Timing.TokenTTL)}}}
}

func startVM(ctx context.Context, w *work) (state.Commit, error) {
	release, err := w.toStart(ctx)
	if err != nil {
		return state.Commit{}, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timing.CallTimeout)
	defer cancel()
	vm, err := w.cfg.Hypervisor.SetPower(ctx, w.ref(), hypervisor.PowerOn, 0)
	if err != nil || vm.Start.Way == "" {
		return state.Commit{}, err
	}
	fields := map[string]string{"way": string(vm.Start.Way)}
	text := "from memory"
	if vm.Start.Way == hypervisor.WayBoot {
		text = "by a boot"
	}
	if vm.Start.Reason != "" {
		text += ": " + vm.Start.Reason
		fields["reason"] = vm.Start.Reason
	}
	return state.Commit{Events: []lab.Event{w.event(lab.EventVMStarted, w.op, text, fields)}}, nil
}

func readyLimit(w *work) time.Duration {
	if w.sb.Spec.ProvisionTimeout > 0 {
		return w.sb.Spec.ProvisionTimeout
	}
	return defaultReady
}

func waitHello(ctx context.Context, w *work) (state.Commit, error) {
	var verdict error
	vm := w.vmLook()
	err := w.until(ctx, func(ctx context.Context) (bool, error) {
		sb, err := w.cfg.Store.Sandbox(ctx, w.sb.ID)
		if err != nil || !sb.ReadyAt.IsZero() {
			return err == nil, err
		}
		if time.Now().After(later(w.op.Deadline, w.resumed())) {
			verdict = fault.New(fault.Timeout, "the guest did not say hello within %s", readyLimit(w)).
				WithHint("look at the console's last lines; a slow host needs a longer provisioning_timeout")
		} else if what := vm(ctx); what != "" {
			verdict = fault.New(fault.Unavailable, "%s before the guest said hello", what)
		}
		return verdict != nil, nil
	})
	if verdict != nil {
		err = w.withConsole(ctx, verdict)
	}
	return state.Commit{}, err
}

// sandboxReady hands over: the sandbox is ready, and a job it was made for is
// next, in one transaction.
func sandboxReady(w *work) state.Commit {
	c := w.sandboxTo(lab.SandboxReady, "")
	if w.op.JobID != "" {
		next, started := w.begun(newOperation(lab.OpRunJob, w.sb.ID, w.op.JobID))
		c.Submit = append(c.Submit, next)
		c.Events = append(c.Events, started)
	}
	return c
}

// sandboxFailed leaves a sandbox that somebody asked for to be looked at; one
// that was made for a job goes with it, and one that nobody wants any more.
func sandboxFailed(w *work) state.Commit {
	c := w.sandboxTo(lab.SandboxFailed, reason(w.op))
	if w.op.JobID != "" || w.op.Cancel {
		c.Submit = append(c.Submit, newOperation(lab.OpDestroySandbox, w.sb.ID, ""))
	}
	if w.op.JobID != "" {
		to := lab.JobFailed
		if w.op.Cancel {
			to = lab.JobCancelled
		}
		c.Jobs = append(c.Jobs, state.JobChange{ID: w.op.JobID, To: to, Reason: reason(w.op)})
	}
	return c
}

// reason is why the operation did not succeed, for people.
func reason(op lab.Operation) string {
	if op.Hint == "" {
		return op.Error
	}
	return op.Error + " (" + op.Hint + ")"
}
