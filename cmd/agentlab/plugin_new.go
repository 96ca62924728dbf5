package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"path/filepath"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/scaffold"
	"github.com/agentlab/agentlab/sdk/version"
)

// written is what plugin new answers.
type written struct {
	Dir   string   `json:"dir"`
	Files []string `json:"files"`
}

func pluginNewCommand() cli.Command {
	p := scaffold.Project{SDK: version.String()}
	dir := ""
	return cli.Command{
		Name: "plugin new", Args: "KIND NAME", MinArgs: 2, MaxArgs: 2, Synopsis: "begin a plugin: a Go project that builds and passes level 1",
		Help: `
Writes a Go project for a plugin of a kind (hypervisor, network, secrets,
exposure): what it is and what it may be configured with, a driver whose methods
say what the contract wants of them, and a test that checks the binary by the
contract. It builds, starts and passes level 1 of plugin test as it is. It needs
no daemon, and no checkout of AgentLab but where --replace names one.

docs/vendor-guide.md leads from there to a working plugin.`,
		Answers: []cli.Answer{cli.AnswerOf[written]("plugin-new")},
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&dir, "dir", "", "write into this `directory` (default: agentlab-plugin-NAME)")
			fs.StringVar(&p.Module, "module", "", "the Go module's path, a `name` (default: example.com/agentlab-plugin-NAME)")
			fs.StringVar(&p.Replace, "replace", "", "use the sdk of the checkout in this `directory`, not a release")
		},
		Run: func(_ context.Context, env *cli.Env, args []string) error {
			p.Kind, p.Name = plugin.Kind(args[0]), args[1]
			if dir == "" {
				dir = plugin.BinaryPrefix + p.Name
			}
			files, err := p.Write(dir)
			if err != nil {
				return err
			}
			return show(env, written{dir, files}, func(w io.Writer) {
				for _, f := range files {
					fmt.Fprintln(w, filepath.Join(dir, f))
				}
				fmt.Fprintf(w, "\nnext:\n  cd %s && make && make test\n  agentlab plugin test bin/%s%s\n", dir, plugin.BinaryPrefix, p.Name)
			})
		},
	}
}
