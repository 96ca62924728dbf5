package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/config/check"
	"github.com/agentlab/agentlab/sdk/fault"
)

// checked is what config check answers.
type checked struct {
	File     string           `json:"file"`
	OK       bool             `json:"ok" doc:"there is no error; warnings do not count"`
	Profiles []string         `json:"profiles" doc:"the usable ones"`
	Problems []config.Problem `json:"problems"`
	Plugins  []checkedPlugin  `json:"plugins" doc:"of the blocks that could be read"`
}

// checkedPlugin is a plugin that a block names.
type checkedPlugin struct {
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	Asked bool   `json:"asked" doc:"it was started to be asked about its config block; an error tells when that failed"`
}

func configCheckCommand() cli.Command {
	var plugins bool
	return cli.Command{
		Name: "config check", Args: "[FILE]", MaxArgs: 1, Synopsis: "check the daemon's configuration and what it names",
		Help: `
Checks the daemon's configuration FILE (default ` + config.DefaultFile + `), its
profiles, who may read and change them, keys, directories and the plugins'
binaries, and tells all that is wrong at once, with file, line and what to do.
It needs no daemon and starts nothing; run it as root, who may read the files.

With --plugins it also starts each plugin for a moment, beside any that run, and
asks it for the schema of its config block and what it thinks of the block. The
binary is verified first, and started without privileges or network unless its
block says confine = false.

An error is what keeps the daemon, a profile or a plugin from working, and ends
the command with code 2; a warning does not.`,
		Answers: []cli.Answer{cli.AnswerOf[checked]("config-check")},
		Flags: func(fs *flag.FlagSet) {
			fs.BoolVar(&plugins, "plugins", false, "also ask the plugins about their config blocks")
		},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			file, err := daemonFile(env, args, "config check")
			if err != nil {
				return err
			}
			r := check.Run(file)
			if plugins {
				r.AskPlugins(ctx)
			}
			return reportCheck(env, file, r, plugins)
		},
	}
}

// daemonFile is the file that a command of the group config works on. It
// refuses --config, which names another file.
func daemonFile(env *cli.Env, args []string, command string) (string, error) {
	if env.Global.Config != "" {
		return "", fault.New(fault.Invalid, "--config names the client's configuration, which %s does not read", command).
			WithHint("name the daemon's as an argument: agentlab %s %s", command, env.Global.Config)
	}
	if len(args) == 0 {
		return config.DefaultFile, nil
	}
	return args[0], nil
}

func checkedPlugins(r check.Report) []checkedPlugin {
	out := []checkedPlugin{}
	if r.Config == nil {
		return out
	}
	for _, b := range r.Config.Plugins {
		asked := slices.ContainsFunc(r.Asked, func(a config.PluginBlock) bool { return a.Range == b.Range })
		out = append(out, checkedPlugin{b.Kind, b.Name, asked})
	}
	return out
}

// printAsked says whose config blocks were looked at by those who know them.
func printAsked(w io.Writer, plugins []checkedPlugin, wanted bool) {
	var asked, not []string
	for _, p := range plugins {
		if p.Asked {
			asked = append(asked, p.Name)
		} else {
			not = append(not, p.Name)
		}
	}
	why := "config check --plugins asks them"
	if wanted {
		why = "an error above keeps them from starting"
	}
	if len(asked) > 0 {
		fmt.Fprintln(w, "plugins asked about their config blocks: "+oneLine(strings.Join(asked, ", ")))
	}
	if len(not) > 0 {
		fmt.Fprintf(w, "plugins not asked about their config blocks: %s (%s)\n", oneLine(strings.Join(not, ", ")), why)
	}
}

func reportCheck(env *cli.Env, file string, r check.Report, asked bool) error {
	problems := r.Diagnostics.Problems()
	wrong := count(problems, "error")
	out := checked{
		File: file, OK: wrong == 0, Profiles: append([]string{}, r.Profiles...), Problems: append([]config.Problem{}, problems...),
		Plugins: checkedPlugins(r),
	}
	err := show(env, out, func(w io.Writer) {
		printProblems(w, problems)
		printAsked(w, out.Plugins, asked)
		if wrong == 0 {
			fmt.Fprintf(w, "%s: ok, %s, %s\n", file, several(len(r.Profiles), "profile"), several(len(problems), "warning"))
		}
	})
	if err != nil || wrong == 0 {
		return err
	}
	return fault.New(fault.Invalid, "%s: %s, %s", file, several(wrong, "error"), several(len(problems)-wrong, "warning"))
}

func count(problems []config.Problem, severity string) int {
	n := 0
	for _, p := range problems {
		if p.Severity == severity {
			n++
		}
	}
	return n
}

// printProblems writes each as a line that editors can follow, with what to do
// about it below.
func printProblems(w io.Writer, problems []config.Problem) {
	for _, p := range problems {
		text := p.Severity + ": " + p.Message
		if p.File != "" {
			text = p.Place() + ": " + text
		}
		fmt.Fprintln(w, oneLine(text))
		if p.Hint != "" {
			fmt.Fprintln(w, "    "+oneLine(p.Hint))
		}
	}
}

func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
