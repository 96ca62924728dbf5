package guest

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestJobEnds(t *testing.T) {
	tests := []struct {
		name, task, status string
		code               int
		message, log       string
	}{
		{"plain", "please fix it", "completed", 0, "", "begins\nthe simulated agent ends\n"},
		{"words", "x sim:print=hello sim:sleep=30ms sim:log=3KB sim:leak=KEY", "completed", 0, "", "KEY=hunter2\n"},
		{"code", "sim:exit=3", "failed", 3, "code 3", "ends"},
		{"code 124", "sim:exit=124", "timeout", 124, "code 124", "ends"},
		{"unknown word", "sim:dance", "failed", 2, "sim:dance: not a word", ""},
		{"bad size", "sim:log=-1MB", "failed", 2, "not a size", ""},
		{"log too long", "sim:log=2MB", "failed", 1, "quota", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			h.logLimit = 1 << 20
			newHouse(t, h, tt.task)
			got := h.final()
			if got.Status != tt.status || got.ExitCode != tt.code || !strings.Contains(got.Message, tt.message) || !got.Uploaded {
				t.Errorf("final report = %+v", got)
			}
			h.do(func() {
				if !strings.Contains(h.log.String(), tt.log) {
					t.Errorf("log = %.300q, want %q in it", h.log.String(), tt.log)
				}
				var res jobResult
				if err := json.Unmarshal(h.files["report.json"], &res); err != nil || res.Status != tt.status || res.Job != "job_1" {
					t.Errorf("report.json = %s (%v)", h.files["report.json"], err)
				}
			})
		})
	}
}

func TestJobStages(t *testing.T) {
	h := newHost(t)
	hs := newHouse(t, h, "sim:artifact=out/a.txt:2KB")
	h.final()
	h.do(func() {
		if got := h.kinds(); got != "clone agent upload " {
			t.Errorf("stages = %q", got)
		}
		if n := len(h.files["out/a.txt"]); n != 2048 {
			t.Errorf("the artifact has %d bytes", n)
		}
	})
	if c := hs.console(); !strings.Contains(c, "hello, this is sbx_a") || strings.Contains(c, token) {
		t.Errorf("console = %q", c)
	}
}

func TestTTL(t *testing.T) {
	h := newHost(t)
	h.ttl = 100 * time.Millisecond
	newHouse(t, h, "sim:hang")
	if got := h.final(); got.Status != "timeout" || got.ExitCode != 124 {
		t.Errorf("final report = %+v", got)
	}
}

func TestCancel(t *testing.T) {
	h := newHost(t)
	newHouse(t, h, "sim:hang")
	h.wait("the agent", func() bool { return strings.Contains(h.kinds(), "agent") })
	h.do(func() { h.cancel = true })
	if got := h.final(); got.Status != "cancelled" {
		t.Errorf("final report = %+v", got)
	}
}

// However late its first sign of life is, a job that waits for it does not end before.
func TestBeat(t *testing.T) {
	h := newHost(t)
	newHouse(t, h, "sim:beat")
	if got := h.final(); got.Status != "completed" {
		t.Errorf("final report = %+v", got)
	}
	h.do(func() {
		if !slices.ContainsFunc(h.reports, func(r report) bool { return r.Kind == heartbeat }) {
			t.Errorf("no sign of life in %+v", h.reports)
		}
	})
}

// A stuck guest gives signs of life but heeds nothing; a silent one is not
// heard of again, also when another process plays on.
func TestDeafGuests(t *testing.T) {
	for _, word := range []string{"stuck", "silent"} {
		t.Run(word, func(t *testing.T) {
			h := newHost(t)
			h.ttl, h.cancel = 50*time.Millisecond, true
			hs := newHouse(t, h, "sim:"+word)
			h.wait("the agent", func() bool { return h.log.Len() > 0 })
			time.Sleep(300 * time.Millisecond)
			before := 0
			h.do(func() { before = len(h.reports) })
			hs.start()
			time.Sleep(300 * time.Millisecond)
			h.do(func() {
				alive := len(h.reports) > before
				if alive != (word == "stuck") {
					t.Errorf("%d reports, then %d", before, len(h.reports))
				}
				for _, r := range h.reports {
					if r.Kind == finished {
						t.Errorf("the job ended: %+v", r)
					}
				}
			})
		})
	}
}

// Lost answers and a plugin that is started again and again: everything is said
// once, and the log has no gap and no double.
func TestPlayedOn(t *testing.T) {
	h := newHost(t)
	h.outage = 3
	hs := newHouse(t, h, "sim:print=a sim:sleep=150ms sim:log=600KB sim:sleep=150ms sim:print=b")
	for range 4 {
		time.Sleep(60 * time.Millisecond)
		hs.start()
		h.do(func() { h.outage++ })
	}
	if got := h.final(); got.Status != "completed" {
		t.Errorf("final report = %+v", got)
	}
	want := "the simulated agent begins\na\n" + string(filler(256<<10)) + string(filler(256<<10)) + string(filler(88<<10)) + "b\nthe simulated agent ends\n"
	h.do(func() {
		if h.log.String() != want {
			t.Errorf("the log has %d bytes, want %d", h.log.Len(), len(want))
		}
		if h.fetches < 2 {
			t.Errorf("fetched %d times; nothing was played on", h.fetches)
		}
	})
	n := 0
	h.do(func() { n = h.fetches })
	hs.start()
	h.wait("another fetch", func() bool { return h.fetches > n })
	h.do(func() {
		last := 0
		for _, r := range h.reports {
			if r.Kind == finished {
				last++
			}
		}
		if last > 2 { // the answer to the first may have been lost
			t.Errorf("%d final reports", last)
		}
	})
}

func TestReboot(t *testing.T) {
	h := newHost(t)
	newHouse(t, h, "sim:reboot")
	if got := h.final(); got.Status != "failed" || !strings.Contains(got.Message, "rebooted") {
		t.Errorf("final report = %+v", got)
	}
}

func TestPowerOff(t *testing.T) {
	h := newHost(t)
	hs := newHouse(t, h, "sim:poweroff")
	h.wait("the machine to go off", func() bool {
		list, err := hs.world.VMs(t.Context())
		return err == nil && len(list) == 1 && list[0].Power == hypervisor.PowerOff
	})
	log, err := hs.world.Effects(t.Context())
	if err != nil || log[len(log)-1].Op != "guest.poweroff" {
		t.Errorf("effects = %+v, %v", log, err)
	}
}

// Without a job a guest says hello and gives signs of life; pausing stops it,
// and a refused credential ends it with a word on the console.
func TestWithoutJob(t *testing.T) {
	h := newHost(t)
	hs := newHouse(t, h, "")
	h.wait("a sign of life", func() bool { return len(h.reports) > 1 && h.reports[0].Job == "" })
	list, err := hs.world.VMs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	vm := list[0]
	vm.Power = hypervisor.PowerPaused
	if err := hs.world.Plant(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * lookEvery)
	before := 0
	h.do(func() { before = len(h.reports) })
	time.Sleep(2 * lookEvery)
	h.do(func() {
		if len(h.reports) != before {
			t.Errorf("a paused guest reported")
		}
		h.credential = "another"
	})
	vm.Power = hypervisor.PowerOn
	if err := hs.world.Plant(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(hs.console(), "refuses"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("console = %q", hs.console())
		}
	}
}

func TestFaultsReachGuests(t *testing.T) {
	h := newHost(t)
	hs := newHouse(t, h, "")
	hs.stop()
	if err := hs.world.SetFaults(context.Background(), world.Fault{Op: "guest.report.*", Do: world.Hang, Times: -1}); err != nil {
		t.Fatal(err)
	}
	before := 0
	h.do(func() { before = len(h.reports) })
	hs.start()
	h.wait("a fetch", func() bool { return h.fetches > 0 })
	time.Sleep(200 * time.Millisecond)
	h.do(func() {
		if len(h.reports) != before {
			t.Error("a report got through")
		}
	})
}

// An idle guest takes on one job after the other, and also a guest that is played
// by another process, at any moment, runs each of them once.
func TestBorrowed(t *testing.T) {
	h := newHost(t)
	hs := newHouse(t, h, "")
	for i, name := range []string{"job_1", "job_2"} {
		want := 0
		h.wait("an idle guest", func() bool {
			last := len(h.reports) - 1
			want = h.fetches + 1
			return last >= 0 && h.reports[last].Job == ""
		})
		h.do(func() {
			h.log.Reset()
			h.job = &job{ID: name, Task: "sim:sleep=150ms sim:print=" + name, TTL: time.Minute}
		})
		h.wait("the agent", func() bool { return h.log.Len() > 0 })
		if i > 0 { // the first is played by one process
			hs.start()
			want++
		}
		h.wait("the final report", func() bool { return h.job == nil })
		h.do(func() {
			log := "the simulated agent begins\n" + name + "\nthe simulated agent ends\n"
			if got := h.log.String(); got != log || h.fetches != want || h.clones != i+1 {
				t.Errorf("%s: log %q, %d fetches of %d, %d clones", name, got, h.fetches, want, h.clones)
			}
		})
	}
	h.do(func() {
		ends := ""
		for _, r := range h.reports {
			if r.Kind == finished {
				ends += r.Job + " " + r.Status + " "
			}
		}
		if ends != "job_1 completed job_2 completed " {
			t.Errorf("final reports: %q", ends)
		}
	})
}

// A job that the host refuses to hear of is not the guest's end.
func TestRefusedJob(t *testing.T) {
	h := newHost(t)
	newHouse(t, h, "")
	h.do(func() {
		h.refused = "job_1"
		h.job = &job{ID: "job_1", TTL: time.Minute}
	})
	h.wait("the refused job", func() bool { return h.fetches > 1 })
	h.do(func() { h.job = &job{ID: "job_2", TTL: time.Minute} })
	h.wait("the end of the next job", func() bool { return h.job == nil })
}

// An answer may be lost on its way to the guest, after the host did its work.
func TestLostAnswer(t *testing.T) {
	h := newHost(t)
	hs := newHouse(t, h, "")
	h.wait("a sign of life", func() bool { return len(h.reports) > 0 })
	lost := world.Fault{Op: "guest.log", At: world.After, Skip: 1, Do: world.Fail}
	if err := hs.world.SetFaults(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	h.do(func() { h.job = &job{ID: "job_1", Task: "sim:print=a sim:print=b", TTL: time.Minute} })
	h.wait("the final report", func() bool { return h.job == nil })
	left, err := hs.world.Faults()
	if err != nil || len(left) > 0 {
		t.Errorf("faults left: %v, %v", left, err)
	}
	h.do(func() {
		want := "the simulated agent begins\na\nb\nthe simulated agent ends\n"
		if got := h.log.String(); got != want || h.conflicts != 1 {
			t.Errorf("log %q, %d chunks said twice", got, h.conflicts)
		}
	})
}
