package cloud_test

import (
	"context"
	"fmt"
	"os"
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

// run runs a line of shell as the user agent and gives how it went.
func (g *guest) run(ctx context.Context, line string) testkit.Result {
	return g.SSH(ctx, g.name, line, nil)
}

// root runs lines of shell as root, up to the first that fails. They have to
// succeed within two minutes.
func (g *guest) root(t testing.TB, lines string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := g.SSH(ctx, g.name, "sudo sh -e", strings.NewReader(lines))
	if r.Code != 0 {
		t.Fatalf("in the guest, %s: exit %d\n%s%s", lines, r.Code, r.Stdout, r.Stderr)
	}
	return strings.TrimSpace(r.Stdout)
}

// copyIn puts a file of this machine into the guest, as root's.
func (g *guest) copyIn(t testing.TB, from, to string, mode os.FileMode) {
	t.Helper()
	f, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := g.SSH(ctx, g.name, fmt.Sprintf("sudo install -D -m %04o /dev/stdin %s", mode, to), f)
	if r.Code != 0 {
		t.Fatalf("copy %s to the guest's %s: exit %d\n%s%s", from, to, r.Code, r.Stdout, r.Stderr)
	}
}
