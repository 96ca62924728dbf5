package badinput_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
)

// nobody is a user who has nothing to do with the daemon.
const nobody = 65534

// bed is a real daemon over a simulated host.
type bed struct {
	*testkit.Sim
	t *testing.T
}

func newBed(t *testing.T) *bed { return &bed{testkit.NewSim(t), t} }

func (b *bed) path(name string) string { return filepath.Join(b.Dir, name) }

func (b *bed) put(name, text string, mode os.FileMode) string {
	b.t.Helper()
	path := b.path(name)
	err := os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		err = os.WriteFile(path, []byte(text), mode)
	}
	if err = errors.Join(err, os.Chmod(path, mode)); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// git runs git in a directory below the bed's.
func (b *bed) git(dir string, args ...string) {
	b.t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"}, args...)...)
	cmd.Dir = b.path(dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("git %s: %v\n%s", args[0], err, out)
	}
}

// repo makes a repository with n empty commits.
func (b *bed) repo(dir string, n int) string {
	b.t.Helper()
	if err := os.Mkdir(b.path(dir), 0o755); err != nil {
		b.t.Fatal(err)
	}
	b.git(dir, "init", "-q")
	for range n {
		b.git(dir, "commit", "-q", "--allow-empty", "-m", "a commit")
	}
	return b.path(dir)
}

// refusal is what is expected of a command that cannot be done.
type refusal struct {
	code  int
	class fault.Class
	says  []string // in the message
	hint  string   // in the hint
}

// refuse runs the command line for people and for programs and wants both told
// the same, and nothing left.
func (b *bed) refuse(want refusal, args ...string) {
	b.t.Helper()
	b.refuseNow(want, args...)
	b.wantNothing()
}

// refuseNow is refuse where something else is there.
func (b *bed) refuseNow(want refusal, args ...string) {
	b.t.Helper()
	people := b.Run(args...)
	message, hint, _ := strings.Cut(people.Stderr, "\nhint: ")
	if people.Code != want.code || !strings.HasPrefix(message, "error: ") || !strings.Contains(hint, want.hint) || hint == "" {
		b.t.Errorf("%q: exit %d, want %d and the hint %q:\n%s", args, people.Code, want.code, want.hint, people.Stderr)
	}
	if strings.Contains(people.Stderr, "secret-pw") {
		b.t.Errorf("%q tells the password:\n%s", args, people.Stderr)
	}
	for _, word := range want.says {
		if !strings.Contains(message, word) {
			b.t.Errorf("%q does not say %q:\n%s", args, word, people.Stderr)
		}
	}
	programs := b.Run(append([]string{"--json"}, args...)...)
	var p api.Problem
	if err := json.Unmarshal([]byte(programs.Stderr), &p); err != nil || programs.Code != want.code || p.Class != string(want.class) || p.Hint == "" {
		b.t.Errorf("%q --json: exit %d, want %d and class %s (%v):\n%s", args, programs.Code, want.code, want.class, err, programs.Stderr)
	}
}

// wantNothing wants no row, no VM, no attachment and no upload.
func (b *bed) wantNothing() {
	b.t.Helper()
	boxes, err1 := b.Client.Sandboxes(b.t.Context(), client.SandboxQuery{All: true})
	jobs, err2 := b.Client.Jobs(b.t.Context(), client.JobQuery{})
	if err := errors.Join(err1, err2); err != nil || len(boxes)+len(jobs) > 0 {
		b.t.Errorf("left: %d sandboxes, %d jobs (%v)", len(boxes), len(jobs), err)
	}
	b.wantEmptyWorld()
}

// wantEmptyWorld wants nothing outside of the rows.
func (b *bed) wantEmptyWorld() {
	b.t.Helper()
	var left []string
	err := b.World.View(b.t.Context(), func(tx *world.Tx) error {
		vms, err1 := tx.VMs()
		nets, err2 := tx.Attachments()
		left = append(left, fmt.Sprintf("%d VMs and %d attachments", len(vms), len(nets)))
		return errors.Join(err1, err2)
	})
	if err != nil || left[0] != "0 VMs and 0 attachments" {
		b.t.Errorf("left: %s (%v)", left, err)
	}
	for _, dir := range []string{"data/repos", "world/guests"} {
		entries, err := os.ReadDir(b.path(dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			b.t.Fatal(err)
		}
		for _, e := range entries {
			b.t.Errorf("left: %s/%s", dir, e.Name())
		}
	}
}

// asNobody runs a command of the project as a user of no rights.
func (b *bed) asNobody(name string, args ...string) testkit.Result {
	b.t.Helper()
	// The checkout may be closed to others.
	content, err := os.ReadFile(testkit.Bin(b.t, name))
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(b.put("open/"+name, string(content), 0o755), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/bin:/bin"}
	if err := errors.Join(os.Chmod(b.Dir, 0o711), os.Chmod(b.path("open"), 0o711)); err != nil {
		b.t.Fatal(err)
	}
	return testkit.Capture(cmd)
}
