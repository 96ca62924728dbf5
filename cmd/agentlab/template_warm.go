package main

import (
	"context"
	"flag"
	"fmt"
	"io"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/fault"
)

func templateWarmCommand() cli.Command {
	var size api.TemplateWarm
	var cores uint
	return cli.Command{
		Name: "template warm", Args: "[TEMPLATE]", Synopsis: "have sandboxes of a size start from memory", MinArgs: 0, MaxArgs: 1,
		Help: `
Boots a VM of the size once, without identity, network or secrets, and keeps its
memory. Sandboxes of the same template and size then start from there instead of
booting. The size, and unless it is given the template, are those of a profile,
or what --cores, --memory-mb and --disk-gb say. What is there already is the
answer at once. Ctrl-C gives it up, and nothing of it stays.

The hypervisor plugin may do the same by itself when a sandbox had to boot; what
it does is among its settings (agentlab plugin docs hypervisor).`,
		Answers: []cli.Answer{cli.AnswerOf[api.Template]("template")},
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&size.Profile, "profile", "", "`profile` whose size and template are taken")
			fs.UintVar(&cores, "cores", 0, "`number` of cores")
			fs.Uint64Var(&size.MemoryMB, "memory-mb", 0, "memory in `MiB`")
			fs.Uint64Var(&size.DiskGB, "disk-gb", 0, "root disk in `GiB` (default: the template's)")
		},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			size.Cores = uint32(min(cores, 1<<16))
			if size.Profile == "" && (size.Cores == 0 || size.MemoryMB == 0 || len(args) == 0) {
				return fault.New(fault.Invalid, "of what size?").
					WithHint("agentlab template warm --profile NAME, or TEMPLATE --cores N --memory-mb N")
			}
			c, err := connect(env)
			if err != nil {
				return err
			}
			defer c.Close()
			if len(args) == 0 {
				check, err := c.Profiles(ctx)
				if err != nil {
					return err
				}
				name, err := templateOf(check, size.Profile)
				if err != nil {
					return err
				}
				args = []string{name}
			}
			p := newProgress(env, c)
			defer p.stop()
			p.running("a VM boots once and is frozen")
			t, err := c.WarmTemplate(ctx, args[0], size)
			p.stop()
			if err != nil {
				return err
			}
			return show(env, t, func(w io.Writer) {
				printTemplates(w, []api.Template{t})
				fmt.Fprintf(env.Err, "\nsandboxes of this size now start from memory\n")
			})
		},
	}
}

func templateOf(p api.Profiles, profile string) (string, error) {
	for _, one := range p.Items {
		if one.Name == profile {
			return one.Template, nil
		}
	}
	return "", fault.New(fault.Invalid, "there is no usable profile %q", profile).WithHint("agentlab profile check %s tells more", profile)
}
