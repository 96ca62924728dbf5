package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestExitCodes(t *testing.T) {
	stopped, stop := context.WithCancel(context.Background())
	stop()
	live := context.Background()
	want := map[fault.Class]int{
		fault.Invalid: 2, fault.NotFound: 3, fault.Denied: 4, fault.Exists: 5, fault.Conflict: 5, fault.Locked: 5,
		fault.Precondition: 5, fault.Unavailable: 6, fault.Exhausted: 6, fault.Timeout: 7, fault.Unsupported: 2, fault.Internal: 1,
	}
	for _, class := range fault.Classes() {
		err := fmt.Errorf("do it: %w", fault.New(class, "no"))
		checkExit(t, err, want[class])
		checkExit(t, ours(live, err), exitOurs)
		checkExit(t, ours(stopped, err), exitCancelled)
	}
	checkExit(t, errors.New("unclassified"), 1)
	checkExit(t, errors.Join(fault.New(fault.NotFound, "a"), fault.New(fault.Denied, "b")), 3)
	checkExit(t, fault.New(fault.Unavailable, "call: %w", context.Canceled), exitCancelled)
	checkExit(t, ours(live, &exitError{code: 7}), 7)
	checkExit(t, quiet(stopped, errors.New("cut")), exitCancelled)
	checkExit(t, quiet(live, errors.New("cut")), 1)
	if ours(live, nil) != nil || quiet(stopped, nil) != nil {
		t.Error("no error became one")
	}
}

func checkExit(t *testing.T, err error, want int) {
	t.Helper()
	null, openErr := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if openErr != nil {
		t.Fatal(openErr)
	}
	defer func() { _ = null.Close() }()
	if got := explain(&cli.Env{Out: null, Err: null}, err); got != want {
		t.Errorf("%v: exit code %d, want %d", err, got, want)
	}
}

func TestJobExit(t *testing.T) {
	code := func(n int) *int { return &n }
	for _, tc := range []struct {
		state string
		code  *int
		want  int
	}{
		{"COMPLETED", code(0), 0},
		{"FAILED", code(3), 3},
		{"FAILED", code(0), exitOurs}, // the agent was well, the upload was not
		{"FAILED", code(-1), exitOurs},
		{"FAILED", code(256), exitOurs},
		{"FAILED", nil, exitOurs},
		{"TIMEOUT", code(1), exitTimedOut},
		{"CANCELLED", nil, exitCancelled},
		{"UNHEARD-OF", nil, exitOurs},
	} {
		got := 0
		if err := jobExit(api.Job{State: tc.state, ExitCode: tc.code}); err != nil {
			got = explain(&cli.Env{}, err)
		}
		if got != tc.want {
			t.Errorf("%s: exit code %d, want %d", tc.state, got, tc.want)
		}
	}
}
