package cloud_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/internal/testkit"
)

// guest is the sandbox that all tests share, and the daemon that made it.
type guest struct {
	*testkit.Daemon
	name string
	seen string // of the console so far
}

// run runs a line of shell as the user agent.
func (g *guest) run(ctx context.Context, line string) testkit.Result {
	return g.SSH(ctx, g.name, line, nil)
}

// root runs a shell script as root. What it prints is given.
func (g *guest) root(t testing.TB, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patient(5*time.Minute))
	defer cancel()
	r := g.run(ctx, "sudo sh -ec '"+strings.ReplaceAll(script, "'", `'\''`)+"'")
	if r.Code != 0 {
		t.Fatalf("in the guest, %s: exit %d\n%s%s", script, r.Code, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}
