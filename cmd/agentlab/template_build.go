package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/sdk/fault"
)

// buildPatience is how long a builder that was told to end may clean up.
const buildPatience = 30 * time.Second

// builtTemplate is the answer of template build.
type builtTemplate struct {
	Folder string `json:"folder"`
}

func templateBuildCommand() cli.Command {
	b := builder{}
	return cli.Command{
		Name: "template build", Synopsis: "build the Debian guest image that sandboxes are made from",
		Help: `
Builds a Debian 12 guest with agent-runner in it, or finds the one that was built
from the same recipe, packages and runner, and prints its folder. The hypervisor
plugin for QEMU uses it from then on. It needs root and the packages that
scripts/install_deps.sh installs, and no daemon. The builder is the one that
belongs to this program: ../images/build.sh beside its folder, or the one in
/usr/share/agentlab.`,
		Answers: []cli.Answer{cli.AnswerOf[builtTemplate]("template-build")},
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&b.image, "image", "fast", "what is built: fast, which boots its kernel directly, or cloud, with firmware, GRUB and cloud-init; an image `variant`")
			fs.StringVar(&b.name, "name", "", "`name` of the template (default: debian-12)")
			fs.UintVar(&b.vmid, "vmid", 0, "`number` of the template (default: 9000)")
			fs.BoolVar(&b.refresh, "refresh", false, "fetch packages anew, and make a new image if any has a new version")
		},
		Run: func(ctx context.Context, env *cli.Env, _ []string) error {
			folder, err := b.run(ctx, env)
			if err != nil {
				return err
			}
			return show(env, builtTemplate{folder}, func(w io.Writer) { fmt.Fprintln(w, folder) })
		},
	}
}

// builder runs the script that makes images.
type builder struct {
	image, name string
	vmid        uint
	refresh     bool
}

func (b builder) run(ctx context.Context, env *cli.Env) (string, error) {
	script, runner, err := findBuilder()
	if err != nil {
		return "", err
	}
	args := []string{"--runner", runner, "--kind", b.image}
	if b.name != "" {
		args = append(args, "--name", b.name)
	}
	if b.vmid != 0 {
		args = append(args, "--vmid", fmt.Sprint(b.vmid))
	}
	if b.refresh {
		args = append(args, "--refresh")
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, script, args...)
	cmd.Stdout, cmd.Stderr = &out, env.Err
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = buildPatience
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			return "", fault.New(fault.Internal, "build image: %s ended with code %d", script, failed.ExitCode()).
				WithHint("its own words are above")
		}
		return "", fault.New(fault.Internal, "build image: %w", err)
	}
	return strings.TrimSpace(out.String()), nil
}

// findBuilder gives the script and the runner that belong to this program.
func findBuilder() (script, runner string, err error) {
	exe, err := os.Executable()
	if err != nil {
		return "", "", fault.New(fault.Internal, "find own program: %w", err)
	}
	bin := filepath.Dir(exe)
	runner = filepath.Join(bin, "agent-runner")
	for _, script := range []string{filepath.Join(bin, "../images/build.sh"), "/usr/share/agentlab/images/build.sh"} {
		if _, err := os.Stat(script); err == nil {
			return script, runner, nil
		}
	}
	return "", "", fault.New(fault.NotFound, "there is no images/build.sh that belongs to %s", exe).
		WithHint("run bin/agentlab of a checkout, or copy its folders images and scripts into /usr/share/agentlab")
}
