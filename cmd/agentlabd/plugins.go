package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/pluginhost"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// recordTimeout bounds the writing of an event.
const recordTimeout = 5 * time.Second

func (p *parts) listPlugins() []api.Plugin { return apiPlugins(p.plugins.List()) }

func (p *parts) checkPlugins(ctx context.Context) []api.Plugin {
	return apiPlugins(p.plugins.Check(ctx))
}

func apiPlugins(list []pluginhost.Status) (out []api.Plugin) {
	now := time.Now()
	for _, s := range list {
		out = append(out, apiPlugin(s, now))
	}
	return out
}

func apiPlugin(s pluginhost.Status, now time.Time) api.Plugin {
	a := api.Plugin{
		Kind: s.Kind, Name: s.Name, Version: s.Version, State: string(s.State), Since: s.Since, Message: s.Message(now),
		Path: s.Path, PID: s.PID, Capabilities: s.Capabilities,
	}
	if a.Message != "" {
		a.CrashID = s.CrashID
	}
	if !s.StartedAt.IsZero() {
		a.StartedAt = &s.StartedAt
	}
	if !s.NextStart.IsZero() {
		a.NextStart = &s.NextStart
	}
	return a
}

func (p *parts) pluginInfo(kindOrName string) (api.PluginInfo, error) {
	d, err := p.plugins.Detail(kindOrName)
	if err != nil {
		return api.PluginInfo{}, err
	}
	c := d.Info.Confinement
	out := api.PluginInfo{
		Plugin: apiPlugin(d.Status, time.Now()), Restarts: d.Restarts, SHA256: d.SHA256, Description: d.Info.Description,
		SDK: d.Info.SDK, Services: d.Info.Services, Config: append([]api.ConfigKey{}, configKeys("", d.Schema.Block)...),
		Privileges: api.Privileges{
			User: c.User, Capabilities: c.Capabilities, Devices: c.Devices, Network: c.Network, StartsWorkloads: c.StartsWorkloads,
		},
	}
	if g := d.Grant; len(d.Info.Services) > 0 { // it came up once
		out.Granted = &api.Granted{Confined: g.Confined, Why: g.Why, UID: g.UID, Capabilities: g.Capabilities, Network: g.Network}
	}
	out.Version = cmp.Or(out.Version, d.Info.Version)
	for _, t := range d.Info.Tools {
		out.Tools = append(out.Tools, api.Tool(t))
	}
	for _, c := range d.Calls {
		out.Calls = append(out.Calls, api.CallCount{
			Method: c.Method, Calls: c.Calls, Failed: c.Failed, Retries: c.Retries, TookUS: c.Took.Microseconds(), MostUS: c.TookMost.Microseconds(),
		})
	}
	for _, c := range d.Crashes {
		out.Crashes = append(out.Crashes, apiCrash(c))
	}
	return out, nil
}

func apiCrash(c pluginhost.Crash) api.Crash {
	out := api.Crash{
		ID: c.ID, At: c.At, Version: c.Version, PID: c.PID, RanMS: c.Ran.Milliseconds(), Reason: c.Reason, MemoryBytes: c.Memory, Output: c.Output,
	}
	for _, r := range c.Calls {
		out.Calls = append(out.Calls, api.CrashCall{
			Method: r.Method, At: r.At, TookUS: r.Took.Microseconds(), Outcome: r.Outcome, Request: r.Request, Operation: r.Operation,
		})
	}
	return out
}

// restartPlugin replaces the plugin's process and tells how it stands then.
func (p *parts) restartPlugin(ctx context.Context, kindOrName string) (api.PluginInfo, error) {
	if err := p.plugins.Restart(ctx, kindOrName); err != nil {
		return api.PluginInfo{}, err
	}
	return p.pluginInfo(kindOrName)
}

// recordTurn makes an event of what happened to a plugin. One that cannot be written
// is in the log anyway.
func (p *parts) recordTurn(ctx context.Context, t pluginhost.Turn) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	if err := p.store.AppendEvent(ctx, turnEvent(t)); err != nil {
		p.log.Warn("an event of a plugin is not recorded", "plugin", t.Kind+" "+t.Name, "err", err)
	}
}

func turnEvent(t pluginhost.Turn) lab.Event {
	name := t.Kind + " " + t.Name
	if t.State == pluginhost.Ready {
		return lab.Event{
			Type: lab.EventPluginRestarted, Message: fmt.Sprintf("plugin %s is ready again, process %d", name, t.PID),
			Fields: map[string]string{"plugin": name, "version": t.Version, "pid": strconv.Itoa(t.PID)},
		}
	}
	first, _, _ := strings.Cut(t.Reason, "\n")
	what := map[pluginhost.State]string{
		pluginhost.Quarantined: "failed and is in quarantine", pluginhost.Failed: "does not start with this configuration",
	}[t.State]
	e := lab.Event{
		Type: lab.EventPluginFailed, Message: fmt.Sprintf("plugin %s %s: %s", name, cmp.Or(what, "failed and is restarted"), first),
		Fields: map[string]string{"plugin": name, "state": string(t.State), "reason": first},
	}
	if t.CrashID != "" {
		e.Fields["crash"] = t.CrashID
	}
	return e
}

// configKeys flattens a schema: blocks come behind the keys beside them.
func configKeys(prefix string, b plugin.Block) []api.ConfigKey {
	var out []api.ConfigKey
	for _, a := range b.Attributes {
		k := api.ConfigKey{
			Name: prefix + a.Name, Type: typeText(a.Type), Required: a.Required, Sensitive: a.Sensitive,
			OneOf: a.OneOf, Min: a.Min, Max: a.Max, Description: a.Description, Deprecated: a.Deprecation,
		}
		if !a.Sensitive {
			k.Default, k.Example = jsonText(a.Default), jsonText(a.Example)
		}
		out = append(out, k)
	}
	slices.SortStableFunc(out, func(x, y api.ConfigKey) int { return cmp.Compare(x.Name, y.Name) })
	for _, n := range b.Blocks {
		kind := map[plugin.Nesting]string{plugin.NestingSingle: "block", plugin.NestingList: "blocks", plugin.NestingMap: "blocks with a label"}
		out = append(out, api.ConfigKey{
			Name: prefix + n.Name, Type: cmp.Or(kind[n.Nesting], "block"), Required: n.MinItems > 0, Description: n.Block.Description,
		})
		out = append(out, configKeys(prefix+n.Name+".", n.Block)...)
	}
	return out
}

// typeText writes a type as HCL does.
func typeText(t plugin.Type) string {
	parsed, err := ctyjson.UnmarshalType(t.JSON())
	if err != nil {
		return string(t.JSON()) // the plugin's schema is broken; its state says so
	}
	return typeexpr.TypeString(parsed)
}

func jsonText(v any) string {
	if v == nil {
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}
