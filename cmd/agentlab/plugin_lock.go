package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/config/pin"
	"github.com/agentlab/agentlab/sdk/fault"
)

// locked is what plugin lock answers.
type locked struct {
	File    string    `json:"file"`
	Changed bool      `json:"changed" doc:"the file was written"`
	Pins    []pin.Pin `json:"pins"`
}

func pluginLockCommand() cli.Command {
	var file string
	var check bool
	return cli.Command{
		Name: "plugin lock", Args: "[PLUGIN…]", MaxArgs: -1, Synopsis: "pin the plugins' binaries in the daemon's configuration",
		Help: `
Writes the SHA-256 of each plugin's binary into its block, as sha256, or of
those that are named by kind or name. The daemon starts no other binary from
then on. Nothing else of the file changes, comments and owner and mode included;
what changes is shown. A binary that others than root could change is not
pinned.

With --check nothing is written; the code is 5 when a plugin is not pinned, or
its binary is not the one that is.

It needs no daemon. A daemon that runs takes the pins over with systemctl reload
agentlabd.`,
		Answers: []cli.Answer{cli.AnswerOf[locked]("plugin-lock")},
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&file, "file", config.DefaultFile, "the daemon's configuration `file`")
			fs.BoolVar(&check, "check", false, "only compare the binaries with what is pinned")
		},
		Run: func(_ context.Context, env *cli.Env, args []string) error {
			if env.Global.Config != "" {
				return fault.New(fault.Invalid, "--config names the client's configuration, which plugin lock does not read").
					WithHint("name the daemon's with --file %s", env.Global.Config)
			}
			l, err := pin.Look(file, args)
			if err != nil {
				return err
			}
			if !check && l.Changed() {
				if err := l.Write(); err != nil {
					return err
				}
			}
			out := locked{file, !check && l.Changed(), l.Pins}
			if err := show(env, out, func(w io.Writer) { printLock(w, l, check) }); err != nil || !check {
				return err
			}
			return l.Check()
		},
	}
}

func printLock(w io.Writer, l *pin.Lock, check bool) {
	if l.Changed() && !check {
		fmt.Fprint(w, l.Diff())
		how := "systemctl reload agentlabd takes it over"
		if _, err := os.Stat(filepath.Join(filepath.Dir(l.File), ".agentlab-dev")); err == nil {
			how = "kill -HUP takes it over; the next start of the dev daemon writes the file anew, without pins"
		}
		fmt.Fprintln(w, l.File+": written; "+how)
		return
	}
	fits := 0
	for _, p := range l.Pins {
		if p.Fits() {
			fits++
		}
	}
	fmt.Fprintf(w, "%s: %d of %s pinned\n", l.File, fits, several(len(l.Pins), "plugin"))
}
