package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/plugindoc"
)

// documented is what plugin docs answers.
type documented struct {
	Name     string `json:"name"`
	Path     string `json:"path" doc:"of the binary"`
	SHA256   string `json:"sha256"`
	Markdown string `json:"markdown"`
	Example  string `json:"example" doc:"its block as HCL"`
}

func pluginDocsCommand() cli.Command {
	var file string
	var example bool
	return cli.Command{
		Name: "plugin docs", Args: "PLUGIN|PATH", MinArgs: 1, MaxArgs: 1, Synopsis: "print what a plugin's binary says of itself, as Markdown or as an example",
		Help: `
Prints a page about a plugin: what it serves, what it asks of the system, an
example of its block, and every key of its config block with type, default and
meaning. With --example it prints only the block, in which all that is not
required is commented out.

It needs no daemon. The binary is a PATH, or that of the block of this name or
kind, or agentlab-plugin-PLUGIN in plugin_dir or beside this program. It is
checked as the daemon checks it, started for a moment without privileges,
network or configuration, and asked.`,
		Answers: []cli.Answer{cli.AnswerOf[documented]("plugin-docs")},
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&file, "file", config.DefaultFile, "the daemon's configuration `file`")
			fs.BoolVar(&example, "example", false, "print only the block, as HCL")
		},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			path, err := plugindoc.Find(file, args[0])
			if err != nil {
				return err
			}
			asked, err := plugindoc.Ask(ctx, path)
			if err != nil {
				return err
			}
			out := documented{Name: asked.Info.Name, Path: path, SHA256: asked.SHA256}
			if out.Example, err = plugindoc.Example(asked); err != nil {
				return err
			}
			var page bytes.Buffer
			if err := plugindoc.Markdown(&page, asked); err != nil {
				return err
			}
			out.Markdown = page.String()
			return show(env, out, func(w io.Writer) {
				if example {
					fmt.Fprintln(w, lines(out.Example))
				} else {
					fmt.Fprintln(w, lines(out.Markdown))
				}
			})
		},
	}
}
