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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	env := &cli.Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}
	code := app().Main(ctx, os.Args[1:], env)
	stop()
	os.Exit(code)
}

// app is the table of all commands.
func app() *cli.App {
	return &cli.App{
		Name:    "agentlab",
		About:   "AgentLab runs coding agents in disposable, network-isolated VMs.",
		Version: version.String(),
		Explain: explain,
		Commands: []cli.Command{
			{Name: "job", Synopsis: "run agents on repositories"},
			jobRunCommand(), jobListCommand(), jobShowCommand(), jobLogsCommand(), jobCancelCommand(),
			jobFetchCommand(), jobArtifactsCommand(), jobDownloadCommand(),
			{Name: "sandbox", Synopsis: "make and look at sandboxes"},
			sandboxNewCommand("sandbox new"), sandboxListCommand("sandbox list"),
			sandboxShowCommand(), sandboxDestroyCommand("sandbox destroy"),
			short(sandboxNewCommand("new"), "sandbox new"), short(sandboxListCommand("ls"), "sandbox list"),
			short(sandboxDestroyCommand("rm"), "sandbox destroy"),
			{Name: "plugin", Synopsis: "look at plugins"},
			pluginListCommand(),
			statusCommand(), logsCommand(), sshCommand(), sshStreamCommand(), versionCommand(),
		},
	}
}

// short makes a command the short form of another.
func short(c cli.Command, of string) cli.Command {
	c.Synopsis += " (short for " + of + ")"
	return c
}
