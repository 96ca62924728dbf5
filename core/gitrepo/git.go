package gitrepo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// CommandTimeout bounds one git command, unless the context ends sooner.
const CommandTimeout = 15 * time.Minute

// outputLimit bounds what is kept of a command's output, in bytes.
const outputLimit = 8 << 20

// hardening overrides what a repository's own configuration could use to run a
// program, to write, or to ask a question.
var hardening = []string{
	"core.hooksPath=/dev/null",
	"core.fsmonitor=false",
	"core.untrackedCache=false",
	"core.alternateRefsCommand=",
	"core.sshCommand=false",
	"core.pager=cat",
	"core.askPass=false",
	"core.editor=false",
	"credential.helper=",
	"commit.gpgSign=false",
	"diff.external=",
	"gc.auto=0",
	"maintenance.auto=false",
	"fetch.recurseSubmodules=false",
	"submodule.recurse=false",
	"protocol.ext.allow=never",
	"advice.detachedHead=false",
	"init.defaultBranch=main",
	"uploadpack.packObjectsHook=",
}

// git runs commands on one repository.
type git struct {
	dir    string   // working directory
	config []string // further key=value settings
	env    []string // further variables
	as     *caller
}

// run runs git and returns its standard output without the last line break.
func (g git) run(ctx context.Context, args ...string) (string, error) {
	var out limited
	err := g.stream(ctx, nil, &out, args...)
	return strings.TrimRight(out.String(), "\n"), err
}

// stream runs git with the given standard input and output.
func (g git) stream(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, CommandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = g.dir
	cmd.Env = g.environ()
	cmd.Stdin = in
	cmd.Stdout = out
	var stderr limited
	cmd.Stderr = &stderr
	cmd.SysProcAttr = g.as.attributes()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("run git %s: %w", args[0], ctx.Err())
	}
	return classify(args[0], err, stderr.String())
}

// environ is the whole environment of a git command: what finds the user's
// home and terminal language, and settings that nothing else can override.
func (g git) environ() []string {
	env := []string{
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_OPTIONAL_LOCKS=0", "GIT_NO_REPLACE_OBJECTS=1", "GIT_NO_LAZY_FETCH=1",
		// Nothing is fetched but from files of ours, wherever url.*.insteadOf points.
		"GIT_ALLOW_PROTOCOL=file", "GIT_ADVICE=0", "GIT_ASKPASS=false", "GIT_LITERAL_PATHSPECS=1", "LC_ALL=C",
	}
	// SUDO_UID lets git trust the repository of the user who called sudo.
	for _, name := range []string{"PATH", "HOME", "USER", "XDG_CONFIG_HOME", "TMPDIR", "SUDO_UID"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	env = append(env, g.as.environ()...)
	settings := append(append([]string{}, hardening...), g.config...)
	env = append(env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(settings)))
	for i, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		env = append(env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, key), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, value))
	}
	return append(env, g.env...)
}

// classify turns a failed command into an error whose class and hint fit what
// git said.
func classify(command string, err error, stderr string) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if errors.Is(err, exec.ErrNotFound) {
			return fault.New(fault.Precondition, "git is not installed").WithHint("install the package git")
		}
		return fmt.Errorf("run git %s: %w", command, err)
	}
	e := &fault.Error{
		Class: fault.Internal, Message: "git " + command + " ended with an error",
		Command: "git " + command, ExitCode: exit.ExitCode(), Stderr: stderr, Err: err,
	}
	switch {
	case strings.Contains(stderr, "dubious ownership"):
		e.Class = fault.Denied
		e.Message = "the repository belongs to another user"
		e.Hint = "run the command as the repository's owner, or: git config --global --add safe.directory DIR"
		e.Stderr = ""
	case strings.Contains(stderr, "not a git repository"):
		e.Class = fault.NotFound
		e.Message = "not a git repository"
		e.Hint = "name a directory inside a git repository, or make one with: git init"
		e.Stderr = ""
	case strings.Contains(stderr, "No space left"):
		e.Class = fault.Exhausted
	case strings.Contains(stderr, "attempting to allocate"):
		e.Class = fault.Exhausted
		e.Hint = "the commits hold an object that takes more than 1 GiB of memory to read; have them made without it"
	}
	return e
}

// limited keeps the first outputLimit bytes and drops the rest.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := outputLimit - l.Len(); room < len(p) {
		l.Buffer.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return l.Buffer.Write(p)
}

// userSettings are the only settings of the user's and the system's own
// configuration that are honoured: which repositories are trusted and which
// files are never looked at.
func userSettings(ctx context.Context, as *caller) []string {
	var out []string
	for _, key := range []string{"safe.directory", "core.excludesFile"} {
		for _, scope := range []string{"--system", "--global"} {
			cmdCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
			cmd := exec.CommandContext(cmdCtx, "git", "config", scope, "--includes", "--null", "--type", "path", "--get-all", key)
			cmd.Dir, cmd.SysProcAttr = "/", as.attributes()
			cmd.Env = append(os.Environ(), as.environ()...)
			found, err := cmd.Output()
			cancel()
			if err != nil {
				continue // not set
			}
			for value := range strings.SplitSeq(strings.TrimSuffix(string(found), "\x00"), "\x00") {
				out = append(out, key+"="+value)
			}
		}
	}
	return out
}

// said reports whether the failed command printed one of the words.
func said(err error, words ...string) bool {
	var e *fault.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, w := range words {
		if strings.Contains(e.Stderr, w) {
			return true
		}
	}
	return false
}
