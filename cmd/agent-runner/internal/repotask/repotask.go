package repotask

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/confine"
	"github.com/agentlab/agentlab/core/gitrepo"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// Subcommand is the word of agent-runner's command line that leads to Main.
const Subcommand = "repo"

// callVariable carries a Call: a URL may hold a password, which must not stand
// in a command line.
const callVariable = "AGENTLAB_REPO_CALL"

// maxResult bounds what is read of a result, in bytes.
const maxResult = 64 << 10

// Actions of a Call.
const (
	Unpack  = "unpack"  // an archive on standard input into Dir
	Clone   = "clone"   // URL at Ref into Dir
	Changes = "changes" // what was committed in Dir on top of Base into Out; on standard input, from Secrets, what must not be in it
)

// Call is one piece of work.
type Call struct {
	Action string `json:"action"`
	Dir    string `json:"dir"`
	URL    string `json:"url,omitempty"`
	Ref    string `json:"ref,omitempty"`
	Base   string `json:"base,omitempty"`
	Out    string `json:"out,omitempty"`
	Result string `json:"result"` // file for the Result
}

// Result is what came of it.
type Result struct {
	Meta    gitrepo.Meta    `json:"meta"`
	Changes gitrepo.Changes `json:"changes"`
	Leaks   gitrepo.Leaks   `json:"leaks"`
	Unread  string          `json:"unread,omitempty"` // why Leaks may be incomplete
	Class   fault.Class     `json:"class,omitempty"`  // of the failure
	Error   string          `json:"error,omitempty"`
	Hint    string          `json:"hint,omitempty"`
}

// Runner runs programs as the agent's user.
type Runner interface {
	Run(ctx context.Context, k confine.Command) (int, error)
}

// Task is where and how git work is done.
type Task struct {
	Programs Runner
	Exe      string    // this program
	Env      []string  // of the other process
	Output   io.Writer // gets what it prints
}

// Run does the work in another process.
func (t Task) Run(ctx context.Context, call Call, stdin io.Reader) (Result, error) {
	b, err := json.Marshal(call)
	if err != nil {
		return Result{}, fmt.Errorf("encode call: %w", err)
	}
	if err := os.Remove(call.Result); err != nil && !errors.Is(err, os.ErrNotExist) {
		return Result{}, fmt.Errorf("remove old result: %w", err)
	}
	code, err := t.Programs.Run(ctx, confine.Command{
		Argv: []string{t.Exe, Subcommand}, Dir: "/", Env: append(append([]string{}, t.Env...), callVariable+"="+string(b)),
		Stdin: stdin, Output: t.Output, Grace: time.Second,
	})
	if err != nil {
		return Result{}, err
	}
	f, err := os.OpenFile(call.Result, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Result{}, fault.New(fault.Internal, "git work ended with exit code %d and without a result", code)
	}
	defer f.Close()
	var res Result
	if err := json.NewDecoder(io.LimitReader(f, maxResult)).Decode(&res); err != nil {
		return Result{}, fault.New(fault.Internal, "read result of git work: %w", err)
	}
	if res.Error != "" {
		return res, &fault.Error{Class: res.Class, Message: res.Error, Hint: res.Hint}
	}
	return res, nil
}

// Main does the work that the environment asks for, in the other process. It
// returns the exit code.
func Main(ctx context.Context, stdin io.Reader, stdout io.Writer) int {
	var call Call
	if err := json.Unmarshal([]byte(os.Getenv(callVariable)), &call); err != nil {
		fmt.Fprintln(stdout, "agent-runner repo is called by agent-runner itself")
		return 2
	}
	_ = os.Unsetenv(callVariable)
	res, err := do(ctx, call, stdin)
	if err != nil {
		res.Class, res.Error, res.Hint = fault.ClassOf(err), err.Error(), fault.HintOf(err)
	}
	b, err := json.Marshal(res)
	if err == nil {
		err = os.WriteFile(call.Result, b, 0o600)
	}
	if err != nil {
		fmt.Fprintln(stdout, "write result:", err)
		return 1
	}
	return 0
}

func do(ctx context.Context, call Call, stdin io.Reader) (res Result, err error) {
	switch call.Action {
	case Unpack:
		res.Meta, err = gitrepo.Unpack(ctx, stdin, call.Dir)
	case Clone:
		res.Meta, err = gitrepo.Clone(ctx, call.Dir, gitrepo.CloneOptions{URL: call.URL, Ref: call.Ref, Env: passOn()})
	case Changes:
		err = changes(ctx, call, stdin, &res)
	default:
		err = fault.New(fault.Invalid, "unknown action %q", call.Action)
	}
	return res, err
}

// changes bundles the commits and looks through them. That they cannot be read
// to the end is said beside them.
func changes(ctx context.Context, call Call, stdin io.Reader, res *Result) (err error) {
	var values []secret.Value
	if err := json.NewDecoder(stdin).Decode(&values); err != nil {
		return errors.New("read what must not be committed")
	}
	if res.Changes, err = gitrepo.MakeChanges(ctx, call.Dir, call.Base, call.Out); err != nil || res.Changes.Commits == 0 {
		return err
	}
	if res.Leaks, err = gitrepo.FindLeaks(ctx, call.Dir, call.Base, values); err != nil {
		res.Unread = err.Error()
	}
	return nil
}

// Secrets is the standard input of Changes: values that the agent may read, so
// that its user may be given them.
func Secrets(values []secret.Value) (io.Reader, error) {
	plain := make([]string, len(values))
	for i, v := range values {
		plain[i] = v.Reveal()
	}
	b, err := json.Marshal(plain)
	if err != nil {
		return nil, errors.New("encode what must not be committed")
	}
	return bytes.NewReader(b), nil
}

// passOn gives the variables by which git authenticates.
func passOn() []string {
	var out []string
	for _, name := range []string{"GIT_ASKPASS", "GIT_SSH_COMMAND", "AGENTLAB_SECRETS_DIR"} {
		if v, ok := os.LookupEnv(name); ok {
			out = append(out, name+"="+v)
		}
	}
	return out
}
