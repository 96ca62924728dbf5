package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
)

func doctorCommand() cli.Command {
	d := &doctor{}
	return cli.Command{
		Name: "doctor", Args: "[SANDBOX|JOB]", Synopsis: "find what is wrong, and collect what a bug report needs", MinArgs: 0, MaxArgs: 1,
		Help: `
Looks whether the daemon answers, its plugins are well, the host is as they
need it, the configuration is in force, what the profiles name is there, there
is space on its disk, operations failed or are stuck, and prints what is wrong
with what can be done about it.

With a sandbox or a job, or with --output, it also writes a bundle for a bug
report, by default into the current directory, readable for you only: states,
operations and events, the end of the job's log, of the guest's console and of
the daemon's log. Secrets that AgentLab knows are not in it, nor what looks like
one, nor the job's task; its README lists what is. Look through it before you
hand it on. In a repository it is an uncommitted change to a later job run
--repo, unless git ignores it.

The exit code is 1 when something is an error, 6 when the daemon does not
answer.`,
		Answers: []cli.Answer{cli.AnswerOf[diagnosis]("doctor")},
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&d.output, "output", "", "write the bundle to this `file` (default with an argument: agentlab-doctor-TIME.tar.gz)")
		},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			d.env = env
			return d.run(ctx, args)
		},
	}
}

// doctor is one look at the daemon. What could not be read stays nil or empty.
type doctor struct {
	env    *cli.Env
	output string

	c        *client.Client
	status   api.Status
	host     api.Host
	profiles api.Profiles
	open     []api.Operation
	sandbox  *api.Sandbox // that was asked about
	job      *api.Job     // the same
	down     error        // the daemon cannot be reached
	diagnosis
}

// diagnosis is what came of it, for programs.
type diagnosis struct {
	Findings []api.Finding `json:"findings"`
	Bundle   string        `json:"bundle,omitempty" doc:"where it was written"`
	Files    []string      `json:"files,omitempty" doc:"what is in it"`
}

func (d *doctor) run(ctx context.Context, args []string) error {
	c, err := connect(d.env)
	if err != nil {
		return err
	}
	defer c.Close()
	d.c = c
	if err := d.examine(ctx, args); err != nil {
		return err
	}
	if d.output != "" || len(args) > 0 {
		if err := d.collect(ctx); err != nil {
			return err
		}
	}
	if err := show(d.env, d.diagnosis, d.print); err != nil {
		return err
	}
	switch {
	case d.down != nil && d.env.Global.JSON:
		return d.down
	case d.down != nil: // people have read it
		return &exitError{code: classCode(d.down)}
	}
	for _, f := range d.Findings {
		if f.Level == api.LevelError {
			return &exitError{code: exitFailed}
		}
	}
	return nil
}

// examine asks the daemon and judges its answers. Only a sandbox or job that is
// not there is an error: with a daemon that is down there is much to say.
func (d *doctor) examine(ctx context.Context, args []string) (err error) {
	if d.status, err = d.c.Status(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		d.down = err
		d.judgeDaemon()
		return nil
	}
	if len(args) > 0 {
		if err := d.find(ctx, args[0]); err != nil {
			return err
		}
	}
	fresh, err := d.c.CheckPlugins(ctx) // what status knows may be seconds old
	if d.note("plugins", err); err == nil {
		d.status.Plugins = fresh
	}
	hosts, hostsErr := d.c.HostFindings(ctx)
	d.host, err = d.c.Host(ctx)
	d.note("host", err)
	d.profiles, err = d.c.Profiles(ctx)
	d.note("profiles", err)
	d.open, err = d.c.Operations(ctx, client.OperationQuery{Open: true, Limit: operationsShown})
	d.note("operations", err)
	d.judgeDaemon()
	d.judgePlugins()
	d.Findings = append(d.Findings, hosts...)
	d.note("host findings", hostsErr)
	d.judgeDisk()
	d.judgeProfiles(ctx)
	d.judgeOperations()
	d.judgeSubject()
	return nil
}

// find reads what was asked about: a job with its sandbox, or the other way
// round.
func (d *doctor) find(ctx context.Context, ref string) error {
	jobID := ref
	if !strings.HasPrefix(ref, "job_") { // no sandbox is called so
		s, err := d.c.Sandbox(ctx, ref)
		if err != nil {
			return err
		}
		if d.sandbox, jobID = &s, s.JobID; jobID == "" {
			return nil
		}
	}
	j, err := d.c.Job(ctx, jobID, 0)
	if err != nil {
		return err
	}
	d.job = &j
	if d.sandbox == nil {
		s, err := d.c.Sandbox(ctx, j.SandboxID)
		if err != nil {
			return err
		}
		d.sandbox = &s
	}
	return nil
}

func (d *doctor) print(w io.Writer) {
	fine := 0
	for _, f := range d.Findings {
		if f.Level == api.LevelOK {
			fine++
			continue
		}
		fmt.Fprintf(w, "%s %s: %s\n", coloured(w, levelColours[f.Level], fmt.Sprintf("%-8s", f.Level)), oneLine(f.Source), indented(f.Message))
		if f.Fix != "" {
			fmt.Fprintf(w, "         fix: %s\n", indented(f.Fix))
		}
	}
	fmt.Fprintf(w, "%-8s %s\n", api.LevelOK, several(fine, "check"))
	if d.Bundle != "" {
		fmt.Fprintf(w, "\nwrote %s: %s\n", oneLine(d.Bundle), strings.Join(d.Files, ", "))
		fmt.Fprintln(d.env.Err, "look through it before you hand it on")
	}
}

var levelColours = map[string]string{api.LevelOK: green, api.LevelWarning: yellow, api.LevelError: red}

// indented keeps text of several lines, as with a console's end, together.
func indented(s string) string { return strings.ReplaceAll(lines(s), "\n", "\n           ") }
