package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

const (
	devAnswers = 5 * time.Second  // to each question
	devDestroy = 30 * time.Second // for all sandboxes
)

// foreignHypervisor names the hypervisor plugin of the daemon of the directory when
// its VMs are not programs that endProcesses knows.
func (o devOptions) foreignHypervisor() string {
	cfg, _ := config.Inspect(filepath.Join(o.dir, devConfig))
	if cfg == nil {
		return ""
	}
	for _, b := range cfg.Plugins {
		if b.Kind == string(plugin.Hypervisor) && b.Name != "qemu" {
			return b.Name
		}
	}
	return ""
}

// destroySandboxes has the daemon destroy its sandboxes while their plugin is there.
// The error says which VMs may go on.
func (o devOptions) destroySandboxes(ctx context.Context, hypervisor string) error {
	ctx, cancel := context.WithTimeout(ctx, devDestroy)
	defer cancel()
	c, err := o.client()
	if err != nil {
		return err
	}
	defer c.Close()
	list, err := c.Sandboxes(ctx, client.SandboxQuery{})
	if err != nil {
		return fault.New(fault.Conflict, "the daemon did not answer, so VMs of the plugin %s may go on: %w", hypervisor, err).
			WithHint("look for them with the tools of %s", hypervisor)
	}
	left, errs := destroyEach(ctx, c, list)
	if len(left) == 0 {
		return nil
	}
	return fault.New(fault.Conflict, "sandboxes could not be destroyed, and their VMs of the plugin %s may go on: %s: %w",
		hypervisor, strings.Join(left, ", "), errs).WithHint("look for them with the tools of %s", hypervisor)
}

// destroyEach gives those that are left, each with its VMID.
func destroyEach(ctx context.Context, c *client.Client, list []api.Sandbox) (left []string, errs error) {
	operations := map[string]string{} // by sandbox
	for _, s := range list {
		a, err := c.DestroySandbox(ctx, s.ID)
		errs = errors.Join(errs, err)
		operations[s.ID] = a.Operation.ID
	}
	for _, s := range list {
		done := false
		if id := operations[s.ID]; id != "" {
			op, err := c.WaitOperation(ctx, id)
			done = err == nil && op.State == string(lab.OpDone)
			if err == nil && !done {
				err = fmt.Errorf("%s: %s", s.Name, op.Error)
			}
			errs = errors.Join(errs, err)
		}
		if !done {
			left = append(left, fmt.Sprintf("%s (VM %d)", s.Name, s.VMID))
		}
	}
	return left, errs
}
