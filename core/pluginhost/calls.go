package pluginhost

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// callsKept is how many of the newest calls of a process a crash report tells.
const callsKept = 20

// CallRecord is one attempt of a call, for crash reports.
type CallRecord struct {
	Method    string        `json:"method"` // "CreateVM"
	At        time.Time     `json:"at"`
	Took      time.Duration `json:"took"`
	Outcome   string        `json:"outcome"` // "ok", "running", "lost", "cancelled" or a class of fault
	Request   string        `json:"request,omitempty"`
	Operation string        `json:"operation,omitempty"`
}

// Counters are what a plugin's calls of one method came to since the daemon
// started.
type Counters struct {
	Method   string
	Calls    uint64 // attempts, retries included
	Failed   uint64
	Retries  uint64
	Took     time.Duration // all of them
	TookMost time.Duration
}

// traffic is the calls at one process.
type traffic struct {
	mu sync.Mutex
	// mu guards:
	running map[*CallRecord]struct{}
	recent  []CallRecord  // newest last
	idle    chan struct{} // not nil: closed when nothing runs
}

// begin takes note of an attempt, end of what came of it.
func (t *traffic) begin(ctx context.Context, method string) *CallRecord {
	on := plugin.CallOf(ctx)
	r := &CallRecord{
		Method: method[strings.LastIndexByte(method, '/')+1:], At: time.Now(), Outcome: "running",
		Request: on.Request, Operation: on.Operation,
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running == nil {
		t.running = map[*CallRecord]struct{}{}
	}
	t.running[r] = struct{}{}
	return r
}

func (t *traffic) end(r *CallRecord, err error, lost bool) CallRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Took, r.Outcome = time.Since(r.At), outcomeOf(err, lost)
	delete(t.running, r)
	t.recent = append(t.recent, *r)
	if n := len(t.recent) - callsKept; n > 0 {
		t.recent = slices.Delete(t.recent, 0, n)
	}
	if t.idle != nil && len(t.running) == 0 {
		close(t.idle)
		t.idle = nil
	}
	return *r
}

func outcomeOf(err error, lost bool) string {
	switch {
	case err == nil:
		return "ok"
	case lost:
		return "lost"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	}
	return string(fault.ClassOf(err))
}

// drained waits until no call runs; whoever calls it lets no new ones begin.
func (t *traffic) drained(ctx context.Context) bool {
	t.mu.Lock()
	if len(t.running) == 0 {
		t.mu.Unlock()
		return true
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return true
	case <-ctx.Done():
		return false
	}
}

// last gives the newest calls, oldest first; those that run are at their end.
func (t *traffic) last() []CallRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	var open []CallRecord
	for r := range t.running {
		one := *r
		one.Took = time.Since(r.At)
		open = append(open, one)
	}
	slices.SortFunc(open, func(a, b CallRecord) int { return a.At.Compare(b.At) })
	out := append(slices.Clone(t.recent), open...)
	return out[max(0, len(out)-callsKept):]
}

// tally counts the calls of a plugin over all its processes.
type tally struct {
	mu sync.Mutex
	// mu guards:
	by map[string]*Counters
}

func (t *tally) add(r CallRecord, retry bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = map[string]*Counters{}
	}
	c := t.by[r.Method]
	if c == nil {
		c = &Counters{Method: r.Method}
		t.by[r.Method] = c
	}
	c.Calls++
	if r.Outcome != "ok" && r.Outcome != "cancelled" { // who left is no failure of the plugin's
		c.Failed++
	}
	if retry {
		c.Retries++
	}
	c.Took += r.Took
	c.TookMost = max(c.TookMost, r.Took)
}

func (t *tally) list() []Counters {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []Counters
	for _, c := range t.by {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b Counters) int { return strings.Compare(a.Method, b.Method) })
	return out
}
