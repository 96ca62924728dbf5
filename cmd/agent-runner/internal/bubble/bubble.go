package bubble

import (
	"os"
	"os/exec"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Config says what stays writable. Everything else is read-only.
type Config struct {
	Program   string // "" looks bwrap up in PATH
	Repo      string
	Home      string
	Secrets   string   // below /run, but read-only
	ExtraArgs []string // appended one by one after our own
}

// Wrap gives the command line that runs argv in the sandbox. fault.Precondition:
// bubblewrap is not installed.
func Wrap(c Config, argv []string) ([]string, error) {
	program := c.Program
	if program == "" {
		program = "bwrap"
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fault.New(fault.Precondition, "the profile asks for bubblewrap, which this template does not have").
			WithHint("install the package bubblewrap in the template, or set inner_sandbox = \"none\"")
	}
	args := []string{
		path, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-pid", "--die-with-parent",
		"--bind", "/tmp", "/tmp", "--bind", "/var/tmp", "/var/tmp", "--bind", "/run", "/run",
	}
	for _, dir := range []string{c.Home, c.Repo} {
		args = append(args, "--bind", dir, dir)
	}
	if _, err := os.Stat(c.Secrets); err == nil {
		args = append(args, "--ro-bind", c.Secrets, c.Secrets)
	}
	args = append(args, "--chdir", c.Repo)
	args = append(args, c.ExtraArgs...)
	args = append(args, "--")
	return append(args, argv...), nil
}
