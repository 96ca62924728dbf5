package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
)

// progress prints one line per stage with the time since it began, and on a
// terminal a moving line for the stage that runs.
type progress struct {
	start  time.Time
	ticker chan struct{}
	done   sync.WaitGroup

	mu      sync.Mutex
	out     io.Writer // mu guards: out, current, since, shown
	current string
	since   time.Time
	shown   bool
}

func newProgress(env *cli.Env) *progress {
	p := &progress{start: time.Now(), out: env.Err, ticker: make(chan struct{})}
	if f, ok := env.Err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.done.Go(p.spin)
	}
	return p
}

// stop ends the moving line.
func (p *progress) stop() {
	select {
	case <-p.ticker:
	default:
		close(p.ticker)
	}
	p.done.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
}

func (p *progress) spin() {
	const frames = `|/-\`
	tick := time.NewTicker(120 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-p.ticker:
			return
		case <-tick.C:
		}
		p.mu.Lock()
		if p.current != "" {
			fmt.Fprintf(p.out, "\r\x1b[K%7.1fs  %c %s", time.Since(p.start).Seconds(), frames[i%len(frames)], p.current)
			p.shown = true
		}
		p.mu.Unlock()
	}
}

// wipe removes the moving line; mu is held.
func (p *progress) wipe() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}

// line prints a finished or noteworthy stage.
func (p *progress) line(stage, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
	fmt.Fprintf(p.out, "%7.1fs  %-15s %s\n", time.Since(p.start).Seconds(), stage, oneLine(text))
}

// running names the stage that the moving line shows; "" hides it.
func (p *progress) running(stage string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current, p.since = stage, time.Now()
	if stage == "" {
		p.wipe()
	}
}

// beside returns a writer for other output on the same terminal.
func (p *progress) beside(w io.Writer) io.Writer { return besideWriter{p, w} }

type besideWriter struct {
	p *progress
	w io.Writer
}

func (b besideWriter) Write(data []byte) (int, error) {
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	b.p.wipe()
	return b.w.Write(data)
}

// event shows one event of the daemon, if people care about it.
func (p *progress) event(e api.Event) {
	f := e.Fields
	switch e.Type {
	case lab.EventStepStarted:
		p.running(f["step"])
	case lab.EventStepProgressed:
		p.running(fmt.Sprintf("%s: %s %s", f["step"], f["phase"], f["fraction"]))
	case lab.EventStepFinished:
		p.running("")
		p.line(f["step"], took(f["took_ms"]))
	case lab.EventStepFailed:
		p.running("")
		p.line(f["step"], "failed: "+f["error"])
	case lab.EventGuestHello:
		p.line("hello", "from the guest, runner "+f["runner"])
	case lab.EventJobStageStarted:
		p.running("")
		p.line(f["stage"], "in the guest")
	}
}

func took(ms string) string {
	d, err := time.ParseDuration(ms + "ms")
	if err != nil {
		return ""
	}
	return "took " + d.Round(time.Millisecond).String()
}

// operation shows an operation's events until it has ended.
func (p *progress) operation(ctx context.Context, c *client.Client, op api.Operation) (api.Operation, error) {
	var oldest int64
	for e, err := range c.Events(ctx, client.EventQuery{After: &oldest, SandboxID: op.SandboxID}) {
		if err != nil {
			return op, err
		}
		p.event(e)
		if e.Type == lab.EventOperationEnded && e.Operation == op.ID {
			break
		}
	}
	return c.Operation(ctx, op.ID)
}
