package unit_test

import (
	"archive/tar"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
)

// guest is a booted Debian with systemd, bash and python3, and with nothing of
// AgentLab's host side in it.
type guest struct {
	// Run runs a line of shell as a user who may use sudo.
	Run func(ctx context.Context, line string, stdin io.Reader) testkit.Result
}

// root runs a bash script as root.
func (g guest) root(t testing.TB, script string, stdin io.Reader) testkit.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	text := base64.StdEncoding.EncodeToString([]byte(script)) // nothing to quote
	return g.Run(ctx, `sudo bash -c "$(echo `+text+` | base64 -d)"`, stdin)
}

// patience is for one script, on a busy machine.
const patience = 5 * time.Minute

// prelude is what every script may use.
const prelude = `set -eu
show() { systemctl show -p "$1" --value agentlabd; }
await() { # SECONDS WHAT COMMAND…
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { echo "not in time: $what" >&2; return 1; }
    sleep 1
  done
}
is() { [ "$("${@:2}")" = "$1" ]; }
not() { ! "$@"; }
submit() { # TASK: a job that somebody follows, until it has said something
  rm -f /run/job.out # of the job before, which said the same
  agentlab job run --repo https://git.example/repo.git --profile sim --task "sim:print=before $1 sim:print=behind" >/run/job.out 2>/run/job.err &
  follow=$!
  await 60 "the job runs" grep -q before /run/job.out || { cat /run/job.err >&2; return 1; }
}
finish() { # the follower ends with the job, and its sandbox is gone
  wait "$follow" || { echo "job run: exit $?" >&2; cat /run/job.err >&2; return 1; }
  grep -x -e before -e behind /run/job.out
  cat /var/lib/agentlab-world/effects.log
}
`

// try runs a script.
func (g guest) try(t testing.TB, script string) testkit.Result {
	t.Helper()
	return g.root(t, prelude+script, nil)
}

// must is try for a script that has to succeed, and gives what it printed.
func (g guest) must(t testing.TB, script string) string {
	t.Helper()
	r := g.try(t, script)
	if r.Code != 0 {
		log := g.try(t, "systemctl status agentlabd --no-pager -l; journalctl -u agentlabd -n 40 --no-pager -o short-precise")
		t.Fatalf("exit %d\n%s%s\nof the script\n%s\nthe service:\n%s%s", r.Code, r.Stdout, r.Stderr, script, log.Stdout, log.Stderr)
	}
	return r.Stdout
}

// want is must for a script that prints exactly this.
func (g guest) want(t testing.TB, script, want string) {
	t.Helper()
	if diff := cmp.Diff(want, g.must(t, script)); diff != "" {
		t.Errorf("%s\nprints (-want +got):\n%s", script, diff)
	}
}

// life is must for a script that brings a job to its end: it ran once, nothing
// of it was lost, and no effect on the simulated world came twice.
func (g guest) life(t testing.TB, script string) {
	t.Helper()
	said, effects, _ := strings.Cut(g.must(t, script), "before\nbehind\n")
	if said != "" {
		t.Errorf("it says %q", said)
	}
	var log []world.Effect
	for line := range strings.Lines(effects) {
		var e world.Effect
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("the script printed %q: %v", line, err)
		}
		log = append(log, e)
	}
	if len(log) == 0 {
		t.Error("nothing happened to the world")
	}
	for _, wrong := range testkit.WrongEffects(log) {
		t.Error(wrong)
	}
}

// source is a file to bring into the guest.
type source struct {
	path, name string
}

// unpack brings files into a directory of the guest; they belong to root there.
func (g guest) unpack(t testing.TB, dir string, files []source) {
	t.Helper()
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(pack(w, files)) }()
	if got := g.root(t, fmt.Sprintf("mkdir -p %s && tar -C %s --no-same-owner -xf -", dir, dir), r); got.Code != 0 {
		t.Fatalf("bring files into the guest: exit %d\n%s%s", got.Code, got.Stdout, got.Stderr)
	}
}

func pack(w io.Writer, files []source) error {
	out := tar.NewWriter(w)
	for _, f := range files {
		content, err := os.ReadFile(f.path)
		if err != nil {
			return err
		}
		st, err := os.Stat(f.path)
		if err != nil {
			return err
		}
		if err := out.WriteHeader(&tar.Header{Name: f.name, Mode: int64(st.Mode().Perm()), Size: int64(len(content)), ModTime: st.ModTime()}); err != nil {
			return err
		}
		if _, err := out.Write(content); err != nil {
			return err
		}
	}
	return out.Close()
}

// bring puts into the guest what a checkout has after make build, as far as the
// installer and the tests need it.
func (g guest) bring(t testing.TB) {
	t.Helper()
	root := testkit.Root(t)
	files := []source{
		{testkit.Bin(t, "agentlabd"), "checkout/bin/agentlabd"},
		{testkit.Bin(t, "agentlab"), "checkout/bin/agentlab"},
		{testkit.Bin(t, "agentlab-plugin-sim"), "checkout/bin/agentlab-plugin-sim"},
	}
	for _, name := range []string{"scripts/install_host.sh", "scripts/lib.sh", "packaging/systemd/agentlabd.service", "docs/man/agentlab.1"} {
		files = append(files, source{filepath.Join(root, name), "checkout/" + name})
	}
	g.unpack(t, "/opt/agentlab", files)
}

// scopeTest builds the tests of the code that gives a VM its scope.
func scopeTest(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "scope.test")
	cmd := exec.Command("go", "test", "-c", "-ldflags=-s -w", "-o", path, "./plugins/qemu/internal/spawn")
	cmd.Dir = testkit.Root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	return path
}
