package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/gitauth"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/repotask"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/seedapply"
	"github.com/agentlab/agentlab/sdk/version"
)

const usage = `agent-runner runs inside an AgentLab guest.

  agent-runner seed      apply the seed disk; once at boot
  agent-runner run       serve this sandbox; started by systemd
  agent-runner askpass   answer a question of git
  agent-runner version   print the version
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := dispatch(ctx, os.Args)
	stop()
	os.Exit(code)
}

func dispatch(ctx context.Context, args []string) int {
	if filepath.Base(args[0]) == gitauth.ProgramName {
		return askpass(args[1:])
	}
	if len(args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	log := hclog.New(&hclog.LoggerOptions{Name: "agent-runner", Level: hclog.Info, Output: os.Stderr, DisableTime: true})
	switch args[1] {
	case "seed":
		return exit(log, "apply seed", seedapply.Apply(ctx, seedapply.Config{Layout: layout.Layout{Root: "/"}, Log: log.Named("seed")}))
	case "run":
		return exit(log, "run", run(ctx, layout.Layout{Root: "/"}, log))
	case repotask.Subcommand:
		return repotask.Main(ctx, os.Stdin, os.Stdout)
	case gitauth.ProgramName:
		return askpass(args[2:])
	case "version", "--version":
		fmt.Println("agent-runner", version.String())
		return 0
	case "help", "--help", "-h":
		fmt.Print(usage)
		return 0
	}
	fmt.Fprintf(os.Stderr, "agent-runner: unknown command %q\n%s", args[1], usage)
	return 2
}

func exit(log hclog.Logger, what string, err error) int {
	if err != nil {
		log.Error(what, "err", err)
		return 1
	}
	return 0
}

func askpass(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "agent-runner: askpass wants one question")
		return 2
	}
	dir := os.Getenv("AGENTLAB_SECRETS_DIR")
	if dir == "" {
		dir = layout.Layout{Root: "/"}.Secrets()
	}
	answer, err := gitauth.Answer(dir, args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent-runner:", err)
		return 1
	}
	fmt.Println(answer)
	return 0
}
