package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/agentlab/agentlab/internal/testkit"
)

// TestSessions runs whole command lines against the real daemon over a
// simulated host.
func TestSessions(t *testing.T) {
	files, err := filepath.Glob("testdata/session/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sessions: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			sim := testkit.NewSim(t)
			sim.Start(t)
			testscript.Run(t, testscript.Params{
				Files: []string{file}, UpdateScripts: *update, RequireExplicitExec: true,
				Setup: func(env *testscript.Env) error {
					env.Setenv("AGENTLAB_SOCKET", sim.Socket())
					env.Setenv("SIM", sim.Dir)
					env.Setenv("PLUGIN", sim.Plugin)
					return setup(env)
				},
				Cmds: with(commands, "restart", func(ts *testscript.TestScript, neg bool, args []string) {
					if neg || len(args) != 2 {
						ts.Fatalf("usage: restart JOB text")
					}
					restart(ts, t, sim, args[0], args[1])
				}),
			})
		})
	}
}

func with[V any](m map[string]V, name string, v V) map[string]V {
	out := map[string]V{name: v}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// restart kills the daemon once the only job has written the text, and starts
// it again after a moment.
func restart(ts *testscript.TestScript, t *testing.T, sim *testkit.Sim, task, text string) {
	var id string
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		for row := range strings.Lines(sim.Run("job", "list").Stdout) {
			if strings.Contains(row, task) {
				id, _, _ = strings.Cut(row, " ")
			}
		}
		if id != "" && strings.Contains(sim.Run("job", "logs", id).Stdout, text) {
			break
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no job %q that wrote %q", task, text)
		}
	}
	sim.Kill()
	time.Sleep(300 * time.Millisecond)
	sim.Start(t)
}
