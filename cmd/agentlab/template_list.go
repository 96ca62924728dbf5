package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

func templateListCommand() cli.Command {
	return cli.Command{
		Name: "template list", Synopsis: "list what sandboxes are made from",
		Help: `
Lists the templates as the hypervisor plugin has them now, broken ones too, and
under MEMORY the sizes of sandboxes that start from memory instead of booting.
What is wrong with one tells agentlab template validate.`,
		Answers: []cli.Answer{listing[api.Template]("templates")},
		Run: func(ctx context.Context, env *cli.Env, _ []string) error {
			list, err := templates(ctx, env, nil)
			if err != nil {
				return err
			}
			return show(env, listed("templates", list), func(w io.Writer) { printTemplates(w, list) })
		},
	}
}

func templateValidateCommand() cli.Command {
	return cli.Command{
		Name: "template validate", Args: "[TEMPLATE…]", Synopsis: "find what is wrong with templates", MinArgs: 0, MaxArgs: -1,
		Help: `
Has the hypervisor plugin look at the templates, named by name or VMID, or at
all of them, and tells what is wrong and what to do about it. The exit code is 2
when one cannot be used.`,
		Answers: []cli.Answer{listing[api.Template]("templates")},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			list, err := templates(ctx, env, args)
			if err != nil {
				return err
			}
			if err := show(env, listed("templates", list), func(w io.Writer) { printFindings(w, list) }); err != nil {
				return err
			}
			broken := 0
			for _, t := range list {
				if worst(t.Findings) == api.LevelError {
					broken++
				}
			}
			if broken > 0 {
				return fault.New(fault.Invalid, "%s cannot be used", several(broken, "template"))
			}
			return nil
		},
	}
}

// templates gives those that are named, in their order, or all.
func templates(ctx context.Context, env *cli.Env, names []string) ([]api.Template, error) {
	c, err := connect(env)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all, err := c.Templates(ctx)
	if err != nil || len(names) == 0 {
		return all, err
	}
	var out []api.Template
	for _, name := range names {
		found := false
		for _, t := range all {
			if t.Name == name || fmt.Sprint(t.VMID) == name {
				out, found = append(out, t), true
			}
		}
		if !found {
			return nil, fault.New(fault.NotFound, "there is no template %q", name).WithHint("%s lists them", next(env, "template list"))
		}
	}
	return out, nil
}

func templateNames(ctx context.Context, c *client.Client, _ []string) (out []cli.Candidate, err error) {
	list, err := c.Templates(ctx)
	for _, t := range list {
		out = append(out, cli.Candidate{Text: t.Name, About: t.Version})
	}
	return out, err
}

func printTemplates(w io.Writer, list []api.Template) {
	var rows [][]string
	for _, t := range list {
		var sizes []string
		for _, m := range t.Memory {
			sizes = append(sizes, sizeText(m))
		}
		state := coloured(w, levelColours[worst(t.Findings)], templateState(t))
		rows = append(rows, []string{t.Name, fmt.Sprint(t.VMID), t.Version, strings.Join(t.Agents, ","), strings.Join(sizes, " "), state})
	}
	table(w, []string{"TEMPLATE", "VMID", "VERSION", "AGENTS", "MEMORY", "STATE"}, rows)
}

// sizeText is a memory template's size, as 2x1024M/8G.
func sizeText(m api.MemoryTemplate) string {
	text := fmt.Sprintf("%dx%dM", m.Cores, m.MemoryMB)
	if m.DiskGB > 0 {
		text += fmt.Sprintf("/%dG", m.DiskGB)
	}
	return text
}

func templateState(t api.Template) string {
	if superseded(t) != nil {
		return "not used"
	}
	return map[string]string{api.LevelOK: "ok", api.LevelWarning: "warning", api.LevelError: "broken"}[worst(t.Findings)]
}

// worst is the highest level among the findings.
func worst(findings []api.Finding) string {
	level := api.LevelOK
	for _, f := range findings {
		if f.Level != api.LevelOK && level != api.LevelError {
			level = f.Level
		}
	}
	return level
}

// superseded is the finding of an image that is there, and not used.
func superseded(t api.Template) *api.Finding {
	i := slices.IndexFunc(t.Findings, func(f api.Finding) bool { return f.ID == hypervisor.FindingSuperseded })
	if i < 0 {
		return nil
	}
	return &t.Findings[i]
}

// printFindings tells what is wrong. Images that are not used pile up with every
// build, so they are one line.
func printFindings(w io.Writer, list []api.Template) {
	older, hint := 0, ""
	for _, t := range list {
		if f := superseded(t); f != nil {
			older, hint = older+1, f.Fix
			continue
		}
		fmt.Fprintf(w, "%s %s (%d)\n", coloured(w, levelColours[worst(t.Findings)], fmt.Sprintf("%-8s", templateState(t))), oneLine(t.Name), t.VMID)
		for _, f := range t.Findings {
			fmt.Fprintf(w, "         %s\n", oneLine(f.Message))
			if f.Fix != "" {
				fmt.Fprintf(w, "           hint: %s\n", oneLine(f.Fix))
			}
		}
	}
	if older == 0 {
		return
	}
	verb := "is"
	if older > 1 {
		verb = "are"
	}
	fmt.Fprintf(w, "%s %s %s not used\n", coloured(w, levelColours[api.LevelWarning], fmt.Sprintf("%-8s", "warning")), several(older, "other image"), verb)
	fmt.Fprintf(w, "           hint: %s\n", oneLine(hint))
}
