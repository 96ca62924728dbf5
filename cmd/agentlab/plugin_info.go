package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
)

func pluginInfoCommand() cli.Command {
	var crash string
	return cli.Command{
		Name: "plugin info", Args: "PLUGIN", Synopsis: "show one plugin by name or kind, and what its block may hold", MinArgs: 1, MaxArgs: 1,
		Help: `
Shows a plugin by its name, or by its kind (hypervisor, network, secrets,
exposure): its process and how it is, what it can do, the privileges that it
asks for and that its process has, the programs it needs, the keys of its config
block, and the newest reports about processes that crashed or hung. What is not
known before a plugin first came up is left out; defaults of sensitive keys are
never shown.

With --crash it shows one report whole: how the process ended, the calls it had,
and the last that it printed. With --json all reports are whole, and the calls
since the daemon started are counted by method.`,
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&crash, "crash", "", "show this report about a `crash`, by its id, or last")
		},
		Answers: []cli.Answer{cli.AnswerOf[api.PluginInfo]("plugin"), cli.AnswerOf[api.Crash]("crash")},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			p, err := c.Plugin(ctx, args[0])
			if err != nil {
				return err
			}
			if crash == "" {
				return show(env, p, func(w io.Writer) { printPlugin(w, p) })
			}
			report, err := findCrash(p, crash)
			if err != nil {
				return err
			}
			return show(env, report, func(w io.Writer) { printCrash(w, report) })
		},
	}
}

func printPlugin(w io.Writer, p api.PluginInfo) {
	pid, restarts, since := "", "", ""
	if !p.Since.IsZero() {
		since = timeText(&p.Since)
	}
	if p.PID > 0 {
		pid = strconv.Itoa(p.PID)
	}
	if p.Restarts > 0 {
		restarts = strconv.Itoa(p.Restarts)
	}
	fields(w,
		"kind", p.Kind, "name", p.Name, "about", p.Description, "version", p.Version, "sdk", p.SDK,
		"state", p.State, "since", since, "why", p.Message, "path", p.Path, "sha256", p.SHA256, "pid", pid,
		"started", timeText(p.StartedAt), "restarts", restarts, "services", strings.Join(p.Services, ", "),
		"capabilities", strings.Join(p.Capabilities, ", "), "asks for", privileges(p.Privileges), "has", granted(p.Granted),
	)
	if len(p.Tools) > 0 {
		var rows [][]string
		for _, t := range p.Tools {
			path := t.Path
			if path == "" {
				path = "not found"
			}
			rows = append(rows, []string{t.Name, t.Version, path})
		}
		fmt.Fprintln(w)
		table(w, []string{"TOOL", "VERSION", "PATH"}, rows)
	}
	if len(p.Crashes) > 0 {
		fmt.Fprintln(w)
		printCrashes(w, p.Crashes)
	}
	if len(p.Config) > 0 {
		fmt.Fprintln(w)
		printConfigKeys(w, p.Config)
	}
}

// privileges says what a plugin asks for; nothing when it never came up.
func privileges(p api.Privileges) string {
	var parts []string
	switch p.User {
	case "":
	case "none":
		parts = append(parts, "a user that owns nothing")
	default:
		parts = append(parts, "user "+p.User)
	}
	parts = slices.Concat(parts, p.Capabilities, p.Devices)
	if p.Network {
		parts = append(parts, "the network")
	}
	if p.StartsWorkloads {
		parts = append(parts, "starting processes that outlive it")
	}
	return strings.Join(parts, ", ")
}

// granted says what a plugin's process has; nothing when it never came up.
func granted(g *api.Granted) string {
	if g == nil {
		return ""
	}
	if !g.Confined {
		return "all that the daemon may, because " + g.Why
	}
	parts := append([]string{"uid " + strconv.Itoa(g.UID)}, g.Capabilities...)
	if len(g.Capabilities) == 0 {
		parts = append(parts, "no capability")
	}
	if g.Network {
		parts = append(parts, "the network")
	} else {
		parts = append(parts, "no network")
	}
	text := strings.Join(parts, ", ")
	if g.Why != "" {
		text += "; " + g.Why
	}
	return text
}

func printConfigKeys(w io.Writer, keys []api.ConfigKey) {
	var rows [][]string
	for _, k := range keys {
		needed, def := "", k.Default
		if k.Required {
			needed = "required"
		}
		if k.Sensitive {
			def = "(sensitive)"
		}
		rows = append(rows, []string{k.Name, k.Type, needed, clip(def, 40), aboutKey(k)})
	}
	table(w, []string{"KEY", "TYPE", "NEEDED", "DEFAULT", "ABOUT"}, rows)
}

func aboutKey(k api.ConfigKey) string {
	parts := []string{}
	if k.Deprecated != "" {
		parts = append(parts, "deprecated: "+k.Deprecated)
	}
	if k.Description != "" {
		parts = append(parts, strings.TrimSuffix(k.Description, "."))
	}
	if len(k.OneOf) > 0 {
		parts = append(parts, "one of "+strings.Join(k.OneOf, ", "))
	}
	number := func(n *float64) string { return strconv.FormatFloat(*n, 'f', -1, 64) }
	switch {
	case k.Min != nil && k.Max != nil:
		parts = append(parts, number(k.Min)+" to "+number(k.Max))
	case k.Min != nil:
		parts = append(parts, "at least "+number(k.Min))
	case k.Max != nil:
		parts = append(parts, "at most "+number(k.Max))
	}
	return strings.Join(parts, "; ")
}
