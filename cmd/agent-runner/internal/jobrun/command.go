package jobrun

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/bubble"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/fault"
)

// modeDangerous lets the agent CLI do everything without asking.
const modeDangerous = "dangerous"

// agentPath is PATH of the agent, before its own ~/.local/bin.
const agentPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// longestVariable is the kernel's limit for one variable, in bytes, with some
// room for its name. A longer task is only in AGENTLAB_TASK_FILE.
const longestVariable = 120 << 10

// cli is how an agent CLI is called without a person at it.
type cli struct {
	argv      []string
	dangerous []string // further arguments in dangerous mode
	stdin     bool     // takes the task on standard input, else as last argument
}

var clis = map[string]cli{
	"claude":   {argv: []string{"claude", "--print"}, dangerous: []string{"--dangerously-skip-permissions"}, stdin: true},
	"codex":    {argv: []string{"codex", "exec"}, dangerous: []string{"--dangerously-bypass-approvals-and-sandbox"}, stdin: true},
	"opencode": {argv: []string{"opencode", "run"}},
}

// invocation is what to run.
type invocation struct {
	argv  []string
	stdin string
}

// choose finds the job's command: the profile's shell line, else the
// repository's script, else an agent CLI. find looks a program up.
func choose(job guestapi.Job, repo string, find func(string) (string, error)) (invocation, error) {
	command := strings.TrimSpace(job.Command)
	named, isCLI := clis[command]
	if command != "" && !isCLI {
		return invocation{argv: []string{shell(find), "-c", command}}, nil
	}
	script := filepath.Join(repo, guestapi.RunScript)
	if st, err := os.Stat(script); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
		return invocation{argv: []string{script}}, nil
	}
	if isCLI {
		path, err := find(command)
		if err != nil {
			return invocation{}, fault.New(fault.Precondition, "the template has no program %q", command).
				WithHint("choose a template that lists it, or set agent.command in the profile")
		}
		return named.invoke(path, job), nil
	}
	for _, name := range slices.Sorted(maps.Keys(clis)) {
		if path, err := find(name); err == nil {
			return clis[name].invoke(path, job), nil
		}
	}
	return invocation{}, fault.New(fault.Precondition, "nothing to run: no agent.command in the profile, no executable %s in the repository, no agent CLI in the template", guestapi.RunScript).
		WithHint("chmod +x %s and commit it, or set agent.command in the profile", guestapi.RunScript)
}

func (c cli) invoke(path string, job guestapi.Job) invocation {
	argv := append([]string{path}, c.argv[1:]...)
	if job.Mode == modeDangerous {
		argv = append(argv, c.dangerous...)
	}
	if c.stdin {
		return invocation{argv: argv, stdin: job.Task}
	}
	return invocation{argv: append(argv, "--", job.Task)}
}

func shell(find func(string) (string, error)) string {
	if path, err := find("bash"); err == nil {
		return path
	}
	return "/bin/sh"
}

// lookup finds a program in the agent's PATH.
func lookup(path string) func(string) (string, error) {
	return func(name string) (string, error) {
		for dir := range strings.SplitSeq(path, ":") {
			file := filepath.Join(dir, name)
			if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				return file, nil
			}
		}
		return "", os.ErrNotExist
	}
}

// environment is everything the agent finds in its environment. The bundle may
// override all but what identifies the job.
func (r *Runner) environment(job guestapi.Job, repo string) []string {
	home := r.Layout.At(r.Login.Home)
	env := []string{
		"PATH=" + r.path(), "HOME=" + home, "USER=" + r.Login.Name, "LOGNAME=" + r.Login.Name,
		"SHELL=" + r.Login.Shell, "LANG=C.UTF-8", "TERM=dumb", "GIT_TERMINAL_PROMPT=0",
	}
	env = append(env, r.Env...)
	dir := r.Layout.JobDir(job.ID)
	env = append(env,
		"AGENTLAB_TASK_FILE="+filepath.Join(dir, taskName), "AGENTLAB_JOB_ID="+job.ID, "AGENTLAB_JOB_MODE="+job.Mode,
		"AGENTLAB_PROFILE="+job.Profile, "AGENTLAB_REPO_DIR="+repo, "AGENTLAB_ARTIFACTS_DIR="+filepath.Join(dir, artifactsName))
	if len(job.Task) <= longestVariable {
		env = append(env, "AGENTLAB_TASK="+job.Task)
	}
	return env
}

func (r *Runner) path() string {
	return r.Layout.At(filepath.Join(r.Login.Home, ".local/bin")) + ":" + agentPath
}

// wrap puts the command into the inner sandbox if the job wants that.
func (r *Runner) wrap(job guestapi.Job, repo string, argv []string) ([]string, error) {
	if job.InnerSandbox != "bubblewrap" || r.NoInnerSandbox {
		return argv, nil
	}
	return bubble.Wrap(bubble.Config{
		Repo: repo, Home: r.Layout.At(r.Login.Home), Secrets: r.Layout.Secrets(), ExtraArgs: job.InnerArgs,
	}, argv)
}
