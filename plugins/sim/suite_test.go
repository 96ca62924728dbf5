package main

import (
	"context"
	"errors"
	"testing"

	"github.com/agentlab/agentlab/plugins/sim/internal/driver"
	"github.com/agentlab/agentlab/sdk/conformance"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// The suites must notice a driver that breaks its contract.

// broken runs one check and wants it to fail, neither passed nor skipped.
func broken(t *testing.T, checks []conformance.Check, name string) {
	t.Helper()
	for _, c := range checks {
		if c.Name != name {
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
			broken(t, conformance.Hypervisor(conformance.Local(test.driver), opts), "templates")
		})
	}
}
