package main

import (
	"context"
	"encoding/json"
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
)

var exitCodes = map[fault.Class]int{
	fault.Invalid: 2, fault.NotFound: 3, fault.Denied: 4,
	fault.Exists: 5, fault.Conflict: 5, fault.Locked: 5, fault.Precondition: 5,
	fault.Unavailable: 6, fault.Exhausted: 6, fault.Timeout: 7,
}

// exitError ends the program with an inner program's code. Without err nothing
// is printed: all has been said.
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

// explain prints an error the way it was asked for and finds the exit code.
func explain(env *cli.Env, err error) int {
	code := exitFailed
	if c, ok := exitCodes[fault.ClassOf(err)]; ok {
		code = c
	}
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
		_ = json.NewEncoder(env.Err).Encode(problem.Of(err))
		return code
	}
	fmt.Fprintln(env.Err, "error:", err)
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintln(env.Err, "hint:", hint)
	}
	return code
}
