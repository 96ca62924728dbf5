package main

import (
	"context"
	"fmt"
	"io"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
)

func pluginRestartCommand() cli.Command {
	return cli.Command{
		Name: "plugin restart", Args: "PLUGIN", Synopsis: "replace a plugin's process by a new one, without losing a call", MinArgs: 1, MaxArgs: 1,
		Help: `
Starts the plugin, named by its name or kind, once more beside the process that
serves, with the block that is in force and the binary that is there now. When
the new process is configured and answers, calls go to it, and the old one ends
when it has finished those it has. When it does not come up, the old one stays
and the error says why. A plugin that is down or in quarantine is started at
once. Sandboxes go on running.

A changed block is taken over by a reload (systemctl reload agentlabd), which
replaces the processes of changed blocks and binaries in the same way.`,
		Answers: []cli.Answer{cli.AnswerOf[api.PluginInfo]("plugin")},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			p, err := c.RestartPlugin(ctx, args[0])
			if err != nil {
				return err
			}
			return show(env, p, func(io.Writer) {
				fmt.Fprintf(env.Err, "%s %s is %s, process %d\n", p.Kind, p.Name, p.State, p.PID)
			})
		},
	}
}
