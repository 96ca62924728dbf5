package driver

import (
	"errors"
	"io"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
)

const idles = "sleep 60; :"

// What was started a moment ago does not show its own arguments yet; what never shows
// a mark is another's, unless one of the VM's may run.
func TestProgramsOfATenant(t *testing.T) {
	t.Parallel()
	const soon = 200 * time.Millisecond
	for name, test := range map[string]struct {
		mark  string
		after time.Duration
		alone bool
		ours  bool
	}{
		"ours":             {mark: "mine", ours: true},
		"another's":        {mark: "others", alone: true},
		"ours soon":        {mark: "mine", after: soon, ours: true},
		"another's soon":   {mark: "others", after: soon},
		"unmarked":         {after: settleTime},
		"unmarked, but us": {alone: true, ours: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := program(t, `exec sh -c "`+idles+`" $mark`)
			if test.mark == "" || test.after == 0 {
				p.goOn(test.mark)
				p.shows(idles)
			} else {
				time.AfterFunc(test.after, func() { p.goOn(test.mark) })
			}
			begun := time.Now()
			ours, err := tenant{mark: "mine", alone: test.alone}.owns(t.Context(), p.Identity)
			if took := time.Since(begun); err != nil || ours != test.ours || took < test.after {
				t.Errorf("ours: %t, %v, after %s; want %t after %s", ours, err, took, test.ours, test.after)
			}
		})
	}
	p := program(t, "exit 0")
	time.AfterFunc(soon, func() { p.goOn("") })
	if ours, err := (tenant{mark: "mine"}).owns(t.Context(), p.Identity); !errors.Is(err, procfs.ErrGone) {
		t.Errorf("what ended meanwhile is ours: %t, %v", ours, err)
	}
}

// held is a shell that does what it shows only when it is given its mark.
type held struct {
	t *testing.T
	procfs.Identity
	in io.Writer
}

func program(t *testing.T, then string) held {
	t.Helper()
	cmd := exec.Command("sh", "-c", "read mark; "+then)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	st, err := procfs.ReadStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return held{t, procfs.Identity{PID: cmd.Process.Pid, StartTicks: st.StartTicks}, in}
}

func (h held) goOn(mark string) {
	if mark != "" {
		mark = machine.MarkFlag + " " + mark
	}
	_, _ = io.WriteString(h.in, mark+"\n")
}

// shows waits until it shows the argument.
func (h held) shows(arg string) {
	h.t.Helper()
	for ctx := testContext(h.t); ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		if args, err := procfs.Args(h.PID); err == nil && slices.Contains(args, arg) {
			return
		}
	}
	h.t.Fatal("it does not go on")
}
