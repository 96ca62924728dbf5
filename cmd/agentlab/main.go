package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/sdk/version"
)

func main() {
	signals, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancelCause(context.Background())
	context.AfterFunc(signals, func() {
		stop() // a second signal ends what the first could not, and before anybody says so
		cancel(context.Cause(signals))
	})
	env := &cli.Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	code := app().Main(ctx, os.Args[1:], env)
	stop()
	os.Exit(code)
}

// app is the table of all commands.
func app() *cli.App {
	return &cli.App{
		Name:     "agentlab",
		About:    "AgentLab runs coding agents in disposable, network-isolated VMs.",
		Version:  version.String(),
		Headings: headings,
		Notes:    notes,
		Codes:    codes,
		Kinds:    kinds(),
		Explain:  explain,
		Later:    later,
		Commands: []cli.Command{
			{Name: "job", Heading: headJobs, Synopsis: "run agents on repositories"},
			jobRunCommand(), jobValidateCommand(), jobListCommand(), jobShowCommand(), jobLogsCommand(), jobCancelCommand(),
			jobFetchCommand(), jobArtifactsCommand(), jobDownloadCommand(),
			{Name: "sandbox", Heading: headSandboxes, Synopsis: "make and look at sandboxes"},
			sandboxNewCommand("sandbox new"), sandboxListCommand("sandbox list"),
			sandboxShowCommand(), sandboxDestroyCommand("sandbox destroy"),
			short(sandboxNewCommand("new"), "sandbox new"), short(sandboxListCommand("ls"), "sandbox list"),
			short(sandboxDestroyCommand("rm"), "sandbox destroy"),
			under(headSandboxes, logsCommand()), under(headSandboxes, sshCommand()), sshStreamCommand(),
			under(headHost, statusCommand()), under(headHost, eventsCommand()), under(headHost, doctorCommand()),
			{Name: "operation", Heading: headHost, Synopsis: "look at what the daemon does, and stop it"},
			operationListCommand(), operationShowCommand(), operationCancelCommand(),
			{Name: "plugin", Heading: headPlugins, Synopsis: "look at plugins, restart, pin, test and write them"},
			pluginListCommand(), pluginInfoCommand(), pluginDocsCommand(), pluginLockCommand(), pluginRestartCommand(),
			pluginNewCommand(), pluginTestCommand(), pluginChecksCommand(),
			{Name: "profile", Heading: headPlugins, Synopsis: "look at profiles and check them"},
			profileListCommand(), profileCheckCommand(),
			{Name: "template", Heading: headPlugins, Synopsis: "build, check and warm what sandboxes are made from"},
			templateListCommand(), templateValidateCommand(), templateWarmCommand(), templateBuildCommand(),
			{Name: "config", Heading: headHost, Synopsis: "check and convert the daemon's configuration"},
			configCheckCommand(), configConvertCommand(), configSchemaCommand(),
			under(headClient, completionCommand()), completeCommand(), under(headClient, versionCommand()),
		},
	}
}

// later is what the README's "Not there yet" speaks of, as it will be called.
var later = []string{
	"init", "bootstrap", "connect", "disconnect", "session", "workspace", "network", "secrets",
	"expose", "unexpose", "exposures", "sandbox start", "sandbox stop", "sandbox suspend", "sandbox resume",
	"sandbox lease", "sandbox snapshot", "sandbox rollback", "sandbox prune",
	"--branch", "--workspace", "--workspace-create", "--workspace-size", "--workspace-storage", "--jump-host", "--jump-user",
}

// Headings of the help.
const (
	headJobs      = "Jobs"
	headSandboxes = "Sandboxes"
	headHost      = "Host"
	headPlugins   = "Plugins and profiles"
	headClient    = "Client"
)

var headings = []string{headJobs, headSandboxes, headHost, headPlugins, headClient}

// under puts a command of one word under a heading.
func under(heading string, c cli.Command) cli.Command {
	c.Heading = heading
	return c
}

// notes is what the reference says about all commands.
const notes = `
A sandbox is named by its VMID, its name or its id, a job by its id. Durations
are ` + "`90s`, `30m`, `2h`" + `, or minutes as a plain number.

The daemon is found by --socket or --endpoint, else by AGENTLAB_ENDPOINT (with
AGENTLAB_TOKEN) or AGENTLAB_SOCKET, else by the endpoint in client.json, else at
/run/agentlab/agentlabd.sock, and where there is none at the socket of a dev
daemon, /run/agentlab-dev/agentlabd.sock. The daemon of this version listens on
its socket only: an endpoint is a proxy to that, or the socket of another machine
is brought here with ssh -N -L ./agentlabd.sock:/run/agentlab/agentlabd.sock HOST.

What waits or follows goes on through a restart of the daemon of up to a minute,
and says on standard error: daemon away, waiting; and then: daemon back.

With --json standard output has one JSON value, or one per line where a command
follows something, and an error is one JSON object on the last line of standard
error: class, detail, hint. On a terminal only text and colours of agents and
guests are shown; a file or a pipe gets an agent's output as it was written.
What a command prints is described as JSON Schemas, the error as problem.

States and errors are coloured where they go to a terminal, unless NO_COLOR is
set or TERM is dumb.

job run ends with the agent's own code, 124 after the job's deadline, and 125
when AgentLab failed; ssh ends with the code of the command in the guest, 255
when ssh failed, and 125 when AgentLab did. A wrong command line is 2 there too.
`

// short makes a command the short form of another.
func short(c cli.Command, of string) cli.Command {
	c.ShortFor = of
	c.Synopsis += " (short for " + of + ")"
	return c
}
