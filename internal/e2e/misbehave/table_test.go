package misbehave_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
)

// row is one way to misbehave.
type row struct {
	atStart world.Action  // what it does instead of coming up, or
	faults  []world.Fault // what it does in a call
	says    []string      // of it, in words for people: status, crash report, the call's error
	logs    []string      // in the daemon's log
	slow    bool          // the host has to wait before it can tell
	stays   []string      // programs that outlive it, which the test ends
	ends    time.Duration // how long the daemon may take to end afterwards, if not mostToEnd
	after   func(t *testing.T, b *bed)
}

const describe = "secrets.describe"

func inCall(do world.Action) []world.Fault { return []world.Fault{{Op: describe, Do: do}} }

var rows = map[string]row{
	"exits before its line": {atStart: world.ExitEarly, says: []string{"ended with status 3 before it was ready", "cannot read /etc/thing"}},
	"exits after its line":  {atStart: world.ExitLate, says: []string{"ended with status 4 before it was ready", "changed its mind"}},
	"chatters":              {atStart: world.Chatter, says: []string{`Welcome to my plugin!\x1b[2J`}},
	"endless line":          {atStart: world.EndlessLine, says: []string{"xxx [cut]"}},
	"wrong version":         {atStart: world.WrongVersion, says: []string{"99"}},
	"bad certificate":       {atStart: world.BadCertificate, says: []string{"certificate"}},
	"silent":                {atStart: world.Silent, slow: true, says: []string{"it was not ready within 30s"}},
	"mute":                  {atStart: world.Mute, slow: true, says: []string{"it was not ready within 30s"}},

	"killed":  {faults: inCall(world.KillPlugin), says: []string{"crash: killed by SIGKILL"}},
	"panics":  {faults: inCall(world.Panic), says: []string{"crash: ended with status 2: panic: no such luck"}},
	"exits":   {faults: inCall(world.Exit), says: []string{"crash: ended with status 0"}},
	"babbles": {faults: inCall(world.Babble), says: []string{"answered"}, logs: []string{"plugin output"}},
	"bad log": {faults: inCall(world.BadLog), says: []string{"answered"}, logs: []string{`\u202eforged`}},
	"long line": {
		faults: []world.Fault{{Op: describe, Do: world.LongLine, Bytes: 10 << 20}},
		says:   []string{"answered"}, logs: []string{"xxx [cut]"},
	},
	"floods": {
		faults: []world.Fault{{Op: describe, Do: world.Flood, For: world.Duration(2 * time.Second)}},
		logs:   []string{"plugin log lines dropped"},
	},
	"leaves programs": {
		faults: []world.Fault{{Op: describe, Do: world.Spawn}, {Op: describe, Do: world.KillPlugin}},
		says:   []string{"answered", "crash: killed by SIGKILL"}, stays: []string{"sleep"},
		after: func(t *testing.T, b *bed) { b.ask(t.Context()) },
	},
	"grows": {
		faults: []world.Fault{{Op: describe, Do: world.Grow, Bytes: 256 << 20}, {Op: describe, Do: world.KillPlugin}},
		says:   []string{"answered", "crash: killed by SIGKILL", "it held more than 200 MiB"},
		after:  func(t *testing.T, b *bed) { b.ask(t.Context()) },
	},

	"hangs in a call": {faults: inCall(world.Deaf), slow: true, says: []string{"plugin secrets sim did not answer in time"}, ends: 15 * time.Second},
	"hangs": {
		faults: []world.Fault{{Op: "health", Subject: "secrets", Do: world.Deaf, Times: -1}}, slow: true,
		says: []string{"degraded: the plugin's health check takes longer than 1", "degraded: it does not answer its health check", "crash: killed because it did not answer for 1"},
	},
	"stops itself": {
		faults: inCall(world.StopItself), slow: true,
		says: []string{"degraded: it does not answer its health check", "crash: killed because it did not answer for 1"},
	},
	"unplugs": {
		faults: inCall(world.Unplug), slow: true,
		says: []string{"its connection broke", "degraded: it does not answer its health check", "crash: killed because it did not answer for 1"},
	},
}

// TestMisbehaving: see the package's comment. What a row says is golden: a
// person reads it.
func TestMisbehaving(t *testing.T) {
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			if r.slow && testing.Short() {
				t.Skip("takes a minute")
			}
			t.Parallel()
			b := newBed(t)
			b.Panics = slices.ContainsFunc(r.faults, func(f world.Fault) bool { return f.Do == world.Panic })
			if said := b.ask(t.Context()); said != "" {
				t.Fatalf("before: %s", said)
			}
			b.runJob(t)
			before := b.level(t)
			endure(t, b, r)
			comeBack(t, b)
			settle(t, b, r, before)
		})
	}
}

// endure lets it misbehave until all is said, and has the others answer
// meanwhile.
func endure(t *testing.T, b *bed, r row) {
	t.Helper()
	var s story
	began := time.Now()
	asked := b.misbehave(t, r, &s)
	if r.after != nil {
		<-asked
		r.after(t, b)
	}
	var worst time.Duration
	missing := func() []string {
		text, log := s.text(), b.Log()
		return append(without(r.says, text), without(r.logs, log)...)
	}
	for ; ; time.Sleep(50 * time.Millisecond) {
		s.hear(b.victim(t))
		worst = max(worst, b.askOthers(t))
		left := missing()
		if len(left) == 0 {
			break
		}
		if time.Since(began) > soon {
			t.Errorf("nobody says %q but:\n%s", left, s.text())
			break
		}
	}
	t.Logf("after %s, others answered within %s:\n%s", time.Since(began).Round(time.Millisecond), worst.Round(time.Millisecond), s.text())
	b.behave(t, r)
	select {
	case <-asked:
	case <-time.After(soon):
		t.Error("the call that it misbehaved in never ended")
	}
}

func without(want []string, text string) (missing []string) {
	for _, w := range want {
		if !strings.Contains(text, w) {
			missing = append(missing, w)
		}
	}
	return missing
}

// comeBack waits until the plugin is as before.
func comeBack(t *testing.T, b *bed) {
	t.Helper()
	began := time.Now()
	said := ""
	testkit.Eventually(t, soon, "the plugin works again", func() bool {
		said = b.ask(t.Context())
		return said == "" && b.victim(t).State == "ready"
	})
	t.Logf("works again after %s", time.Since(began).Round(time.Millisecond))
	b.runJob(t)
}

// The bounds hold with the race detector too, which takes thrice the memory and
// has each process end a second later.
const (
	mostLogged   = 1 << 20 // bytes of the daemon's log in one row
	mostResident = 150     // MiB of the daemon at its worst; it is 35 when nothing happens
	mostToEnd    = 5 * time.Second
)

var shown = cmpopts.IgnoreUnexported(level{})

// settle expects the daemon to hold what it held before.
func settle(t *testing.T, b *bed, r row, before level) {
	t.Helper()
	for _, pid := range b.offspring() {
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); len(r.stays) > 0 && !strings.HasSuffix(exe, "agentlab-plugin-sim") {
			r.stays = r.stays[1:]
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		}
	}
	if len(r.stays) > 0 {
		t.Errorf("%q should have stayed", r.stays)
	}
	var now level
	for end := time.Now().Add(soon); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if now = b.level(t); cmp.Equal(before, now, shown) && now.sockets <= before.sockets+mostSockets {
			break
		}
	}
	if diff := cmp.Diff(before, now, shown); diff != "" || now.sockets > before.sockets+mostSockets {
		t.Errorf("it holds more or less than before, and %d sockets after %d:\n%s", now.sockets, before.sockets, diff)
	}
	resident, most := b.resident(t)
	logged := len(b.Log())
	t.Logf("%d MiB, %d MiB at most, %d KiB logged", resident, most, logged>>10)
	if logged > mostLogged {
		t.Errorf("%d bytes were logged", logged)
	}
	if most > mostResident {
		t.Errorf("the daemon took %d MiB", most)
	}
	began := time.Now()
	if code := b.Term(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > max(mostToEnd, r.ends) {
		t.Errorf("the daemon took %s to end", took)
	}
}
