package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/problem"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Exit codes besides those of exitCodes and of inner programs.
const (
	exitFailed    = 1
	exitOurs      = 125 // job run, ssh: AgentLab failed, not the program inside
	exitTimedOut  = 124 // job run: the deadline
	exitCancelled = 130
	exitSSH       = 255 // what ssh itself ends with when it failed
)

var exitCodes = map[fault.Class]int{
	fault.Invalid: 2, fault.Unsupported: 2, fault.NotFound: 3, fault.Denied: 4,
	fault.Exists: 5, fault.Conflict: 5, fault.Locked: 5, fault.Precondition: 5,
	fault.Unavailable: 6, fault.Exhausted: 6, fault.Timeout: 7,
}

// codes is what the reference says about exit codes.
var codes = []cli.Code{
	{Code: 0, Meaning: "done"},
	{Code: exitFailed, Meaning: "failed in another way than the following"},
	{Code: 2, Meaning: "the command line or the request cannot work as it is, or not here"},
	{Code: 3, Meaning: "there is no such thing"},
	{Code: 4, Meaning: "not allowed"},
	{Code: 5, Meaning: "in conflict with what is there, or in the wrong state for it"},
	{Code: 6, Meaning: "the daemon or something it needs is not available, or a quota is used up"},
	{Code: 7, Meaning: "no answer in time"},
	{Code: exitTimedOut, Meaning: "job run, job logs -f: the job's deadline"},
	{Code: exitOurs, Meaning: "job run, job logs -f, ssh: AgentLab failed, not the program inside"},
	{Code: exitCancelled, Meaning: "ended by a signal; job run, job logs -f: also the job was cancelled"},
	{Code: exitSSH, Meaning: "ssh: ssh itself failed"},
}

// exitError ends the program with a code of its own. Without err nothing is
// printed: all has been said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// ours makes err end the program with the code that no inner program gives.
func ours(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*exitError](err); err == nil || ok {
		return err
	}
	if ctx.Err() != nil {
		return &exitError{exitCancelled, err}
	}
	return &exitError{exitOurs, err}
}

// quiet ends the program without a word when it was told to stop: for commands
// that go on until then.
func quiet(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return &exitError{code: exitCancelled}
	}
	return err
}

// classCode is the exit code of an error's class.
func classCode(err error) int {
	if c, ok := exitCodes[fault.ClassOf(err)]; ok {
		return c
	}
	return exitFailed
}

// explain prints an error the way it was asked for and finds the exit code.
func explain(env *cli.Env, err error) int {
	code := classCode(err)
	if errors.Is(err, context.Canceled) {
		code = exitCancelled
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		if exit.err == nil {
			return exit.code
		}
		code = exit.code
	}
	if env.Global.JSON {
		_ = writeJSON(env.Err, problem.Of(err), "")
		return code
	}
	fmt.Fprintln(env.Err, coloured(env.Err, red, "error:"), lines(err.Error()))
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintln(env.Err, "hint:", lines(hint))
	}
	return code
}
