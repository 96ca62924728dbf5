package cloud_test

import (
	"context"
	"io"
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

// asRoot runs a bash script as root, with the given standard input.
func (g *guest) asRoot(t testing.TB, script string, stdin io.Reader, within time.Duration) testkit.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return g.SSH(ctx, g.name, "sudo bash -c '"+strings.ReplaceAll(script, "'", `'\''`)+"'", stdin)
}

// root is asRoot for a script that has to succeed within two minutes, and gives
// what it prints.
func (g *guest) root(t testing.TB, script string) string {
	t.Helper()
	r := g.asRoot(t, "set -e\n"+script, nil, 2*time.Minute)
	if r.Code != 0 {
		t.Fatalf("in the guest, %s: exit %d\n%s%s", script, r.Code, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}
