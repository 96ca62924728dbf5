package main

import (
	"context"
	"errors"
	"testing"

	"github.com/agentlab/agentlab/plugins/sim/internal/driver"
	"github.com/agentlab/agentlab/sdk/conformance"
	"github.com/agentlab/agentlab/sdk/exposure"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// The suites must notice a driver that breaks its contract.

// broken runs one check and wants it to fail, neither passed nor skipped.
func broken(t *testing.T, checks []conformance.Check, name string) {
	t.Helper()
	for _, c := range checks {
		if c.ID != name {
			continue
		}
		if err := c.Run(t.Context()); err == nil || errors.Is(err, conformance.ErrSkipped) {
			t.Errorf("check %q: %v, want it broken", name, err)
		} else {
			t.Log(err)
		}
		return
	}
	t.Errorf("there is no check %q", name)
}

// templateless lists no template.
type templateless struct{ hypervisor.Driver }

func (templateless) ListTemplates(context.Context) ([]hypervisor.Template, error) { return nil, nil }

func TestSuiteNoticesMissingTemplate(t *testing.T) {
	d := driver.NewHypervisor(openWorld(t), nil)
	for name, test := range map[string]struct {
		driver   hypervisor.Driver
		template string
	}{
		"none is listed":    {templateless{d}, "debian-12"},
		"another is listed": {d, "debian-11"},
	} {
		t.Run(name, func(t *testing.T) {
			opts := conformance.HypervisorOptions{Template: test.template}
			broken(t, conformance.Hypervisor(conformance.Local(test.driver), opts), "hypervisor.templates")
		})
	}
}

// A suite that can make nothing fails once and says why; skips alone would look well.
func TestSuiteNoticesThatNothingIsChecked(t *testing.T) {
	w := openWorld(t)
	for id, checks := range map[string][]conformance.Check{
		"hypervisor.create": conformance.Hypervisor(conformance.Local[hypervisor.Driver](templateless{driver.NewHypervisor(w, nil)}), conformance.HypervisorOptions{}),
		"secrets.open":      conformance.Secrets(conformance.Local[secrets.Driver](driver.NewSecrets(w)), conformance.SecretsOptions{}),
		"exposure.publish":  conformance.Exposure(conformance.Local[exposure.Driver](driver.NewExposure(w)), conformance.ExposureOptions{}),
	} {
		broken(t, checks, id)
		for _, c := range checks {
			if err := c.Run(t.Context()); c.ID != id && err != nil && !errors.Is(err, conformance.ErrSkipped) {
				t.Errorf("%s: %v", c.ID, err)
			}
		}
	}
}

// mortal opens a driver that takes along at its end what it made.
func mortal[D any](d D, end func(D) error) conformance.Open[D] {
	return func(context.Context) (D, func(), error) {
		return d, func() { _ = end(d) }, nil
	}
}

func TestSuiteNoticesWhatDiesWithItsProcess(t *testing.T) {
	w := openWorld(t)
	h, n, _, e := options(t, w)
	ctx := context.WithoutCancel(t.Context())
	vms := mortal[hypervisor.Driver](driver.NewHypervisor(w, nil), func(d hypervisor.Driver) error {
		list, err := d.ListVMs(ctx, "", true)
		for _, vm := range list {
			_, off := d.SetPower(ctx, vm.Ref, hypervisor.PowerOff, 0)
			err = errors.Join(err, off)
		}
		return err
	})
	policies := mortal[network.Driver](driver.NewNetwork(w), func(d network.Driver) error {
		list, err := d.ListAttachments(ctx, "")
		for _, a := range list {
			err = errors.Join(err, d.Detach(ctx, a.InForce.SandboxID))
		}
		return err
	})
	rules := mortal[exposure.Driver](driver.NewExposure(w), func(d exposure.Driver) error {
		list, err := d.List(ctx, "")
		for _, r := range list {
			err = errors.Join(err, d.Unpublish(ctx, r.Owner, r.HostPort))
		}
		return err
	})
	broken(t, conformance.Hypervisor(vms, h), "hypervisor.survives")
	broken(t, conformance.Network(policies, n), "network.survives")
	broken(t, conformance.Exposure(rules, e), "exposure.survives")
	if list, err := w.VMs(ctx); err != nil || len(list) != 0 {
		t.Errorf("machines left: %+v, %v", list, err)
	}
}

// stumbler cannot go on with what a create left that was given up in its middle.
type stumbler struct {
	hypervisor.Driver
	lost map[uint32]bool
}

func (s stumbler) CreateVM(ctx context.Context, req hypervisor.CreateRequest, progress func(hypervisor.Progress)) (hypervisor.VM, error) {
	if s.lost[req.Ref.VMID] {
		return hypervisor.VM{}, fault.New(fault.Exists, "half of vm %d is there", req.Ref.VMID)
	}
	if ctx.Err() == nil && progress != nil {
		progress(hypervisor.Progress{Phase: "clone disk"})
		s.lost[req.Ref.VMID] = ctx.Err() != nil
	}
	return s.Driver.CreateVM(ctx, req, nil)
}

// litterer leaves what a create that was given up had made, and makes it anew when
// it is asked again.
type litterer struct{ hypervisor.Driver }

func (l litterer) CreateVM(ctx context.Context, req hypervisor.CreateRequest, progress func(hypervisor.Progress)) (hypervisor.VM, error) {
	if old, err := l.GetVM(ctx, req.Ref); err == nil && old.Cores != req.Cores {
		if err := l.DestroyVM(ctx, req.Ref); err != nil {
			return hypervisor.VM{}, err
		}
	}
	if ctx.Err() == nil && progress != nil {
		if progress(hypervisor.Progress{Phase: "clone disk"}); ctx.Err() != nil {
			req.Cores++
			_, err := l.Driver.CreateVM(context.WithoutCancel(ctx), req, nil)
			return hypervisor.VM{}, errors.Join(ctx.Err(), err)
		}
	}
	return l.Driver.CreateVM(ctx, req, nil)
}

func TestSuiteNoticesWhatAFailureLeaves(t *testing.T) {
	t.Parallel()
	d := litterer{driver.NewHypervisor(openWorld(t), nil)}
	broken(t, conformance.Hypervisor(conformance.Local[hypervisor.Driver](d), conformance.HypervisorOptions{}), "hypervisor.create-given-up")
}

func TestSuiteNoticesHalfOfACreate(t *testing.T) {
	d := stumbler{driver.NewHypervisor(openWorld(t), nil), map[uint32]bool{}}
	broken(t, conformance.Hypervisor(conformance.Local[hypervisor.Driver](d), conformance.HypervisorOptions{}), "hypervisor.create-given-up")
}
