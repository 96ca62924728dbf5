package pluginhost

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPace(t *testing.T) {
	type event struct {
		after  time.Duration // the event before
		how    fall
		lasted time.Duration
		want   State
		pause  time.Duration // the longest that chance may make of it
	}
	const hour = time.Hour
	for name, events := range map[string][]event{
		"a crash after long":     {{0, crashed, hour, Starting, 0}, {hour, crashed, hour, Starting, 0}},
		"the first of young age": {{0, crashed, time.Second, Starting, 0}},
		"again and again": {
			{0, crashed, 1, Starting, 0},
			{1, crashed, 1, Backoff, 500 * time.Millisecond},
			{1, crashed, 1, Backoff, time.Second},
			{1, crashed, 1, Backoff, 2 * time.Second},
			{1, crashed, 1, Quarantined, 15 * time.Second},
			{1, crashed, 1, Quarantined, 30 * time.Second},
			{1, crashed, 0, Quarantined, time.Minute},
		},
		"never up": {
			{0, crashed, 0, Backoff, 500 * time.Millisecond}, {1, crashed, 0, Backoff, time.Second},
		},
		"refusals never quarantine": {
			{0, refused, 0, Backoff, 500 * time.Millisecond},
			{1, refused, 0, Backoff, time.Second},
			{1, refused, 0, Backoff, 2 * time.Second},
			{1, refused, 0, Backoff, 4 * time.Second},
			{1, refused, 0, Backoff, 8 * time.Second},
			{1, refused, 0, Backoff, 16 * time.Second},
			{1, refused, 0, Backoff, 30 * time.Second},
			{1, refused, 0, Backoff, 30 * time.Second},
		},
		"far apart": {
			{0, crashed, hour, Starting, 0},
			{hour, crashed, hour, Starting, 0},
			{hour, crashed, hour, Starting, 0},
			{hour, crashed, hour, Starting, 0},
			{hour, crashed, hour, Starting, 0},
			{hour, crashed, hour, Starting, 0},
		},
		"steady in between, but five in the window": {
			{0, crashed, 61 * time.Second, Starting, 0},
			{time.Minute, crashed, 61 * time.Second, Starting, 0},
			{time.Minute, crashed, 61 * time.Second, Starting, 0},
			{time.Minute, crashed, 61 * time.Second, Starting, 0},
			{time.Minute, crashed, 61 * time.Second, Quarantined, 15 * time.Second},
		},
		"a wrong configuration": {{0, wrong, 0, Failed, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, chance := range []float64{0, 0.5, 1} {
				var p pace
				now := time.Unix(1e9, 0)
				for n, e := range events {
					now = now.Add(e.after)
					got := p.fell(now, e.how, e.lasted, chance)
					want := verdict{state: e.want, pause: e.pause/2 + time.Duration(chance*float64(e.pause/2))}
					if diff := cmp.Diff(want, got, cmp.AllowUnexported(verdict{}), cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "why" }, cmp.Ignore())); diff != "" {
						t.Fatalf("fall %d: %s", n, diff)
					}
					if (got.why != "") != (e.want == Quarantined) {
						t.Errorf("fall %d is explained by %q", n, got.why)
					}
				}
			}
		})
	}
}

func TestHealedPluginStartsAfresh(t *testing.T) {
	var p pace
	now := time.Unix(1e9, 0)
	if p.probation() != 0 {
		t.Error("on probation without a crash")
	}
	for range crashesAllowed {
		p.fell(now, crashed, 1, 1)
	}
	if p.probation() != healedAfter {
		t.Error("not on probation in quarantine")
	}
	p.healed()
	if got := p.fell(now, crashed, 1, 1); got.state != Starting || p.probation() != 0 {
		t.Errorf("after it healed: %+v", got)
	}
}

func TestPulse(t *testing.T) {
	type beat struct {
		at       time.Duration // begin of the check
		took     time.Duration
		answered bool
		hangs    bool
	}
	const s = time.Second
	for name, beats := range map[string][]beat{
		"hangs":          {{0, 2 * s, false, false}, {3 * s, 2 * s, false, false}, {6 * s, 2 * s, false, false}, {9 * s, 2 * s, false, true}},
		"fast refusals":  {{0, 0, false, false}, {1 * s, 0, false, false}, {2 * s, 0, false, false}, {3 * s, 0, false, false}, {10 * s, 0, false, true}},
		"one answer":     {{0, 2 * s, false, false}, {3 * s, 2 * s, false, false}, {6 * s, 2 * s, false, false}, {9 * s, 1 * s, true, false}, {11 * s, 2 * s, false, false}},
		"few but long":   {{0, 2 * s, false, false}, {20 * s, 2 * s, false, false}, {40 * s, 2 * s, false, false}, {60 * s, 0, true, false}},
		"always answers": {{0, s, true, false}, {10 * s, s, true, false}},
	} {
		t.Run(name, func(t *testing.T) {
			var p pulse
			zero := time.Unix(1e9, 0)
			for n, b := range beats {
				if got := p.beat(zero.Add(b.at), zero.Add(b.at+b.took), b.answered); got != b.hangs {
					t.Errorf("beat %d: hangs is %v", n, got)
				}
			}
		})
	}
}

func TestEveryStateHasTransitions(t *testing.T) {
	for _, from := range []State{Starting, Ready, Degraded, Backoff, Quarantined, Failed, Stopped} {
		if !mayFollow(from, Starting) && from != Starting || from != Stopped && !mayFollow(from, Stopped) {
			t.Errorf("%s: %v", from, transitions[from])
		}
	}
}

func TestMessage(t *testing.T) {
	now := time.Unix(1e9, 0)
	fallen := Status{Reason: "killed by SIGKILL", FailedAt: now.Add(-3 * time.Second), NextStart: now.Add(1200 * time.Millisecond)}
	for state, want := range map[State]string{
		Backoff:     "killed by SIGKILL (3.0 s ago), restarting in 1.2 s",
		Quarantined: "killed by SIGKILL (3.0 s ago), tried again in 1.2 s",
		Starting:    "killed by SIGKILL (3.0 s ago), restarting",
		Degraded:    "killed by SIGKILL",
		Ready:       "", Stopped: "",
	} {
		fallen.State = state
		if got := fallen.Message(now); got != want {
			t.Errorf("%s: %q, want %q", state, got, want)
		}
	}
	if got := (Status{State: Starting}).Message(now); got != "" {
		t.Errorf("first start: %q", got)
	}
	for d, want := range map[time.Duration]string{
		-1: "0.0 s", 40 * time.Second: "40 s", 3 * time.Minute: "3 min", 50 * time.Hour: "50 h", 9949 * time.Millisecond: "9.9 s", 9950 * time.Millisecond: "10 s",
	} {
		if got := brief(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}
