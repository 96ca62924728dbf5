package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// progress prints one line per stage with the time since it began, and on a
// terminal a moving line for the stage that runs.
type progress struct {
	start time.Time
	quit  chan struct{}
	once  sync.Once
	done  sync.WaitGroup

	inGuest bool // of the job whose events come: its stages run there

	mu sync.Mutex
	// mu guards:
	out     io.Writer
	current string
	shown   bool // the moving line is there
	open    bool // other output there has not ended its line
}

func newProgress(env *cli.Env, c *client.Client) *progress {
	p := &progress{start: time.Now(), out: env.Err, quit: make(chan struct{})}
	if isTerminal(env.Err) && !isDumb() {
		p.done.Go(p.spin)
	}
	c.Watch(func(away bool) { p.line("daemon", presence(away)) })
	return p
}

// stop ends the moving line. It may be called more than once.
func (p *progress) stop() {
	p.once.Do(func() { close(p.quit) })
	p.done.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) spin() {
	const frames = `|/-\`
	tick := time.NewTicker(120 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-p.quit:
			return
		case <-tick.C:
		}
		p.mu.Lock()
		if p.current != "" && !p.open {
			line := fmt.Sprintf("%7.1fs  %c %s", time.Since(p.start).Seconds(), frames[i%len(frames)], p.current)
			fmt.Fprintf(p.out, "\r\x1b[K%s", clip(line, columns(p.out)-1))
			p.shown = true
		}
		p.mu.Unlock()
	}
}

// columns is the width of the terminal; a longer moving line would wrap and
// could not be wiped.
func columns(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 10 {
			return n
		}
	}
	return 80
}

// clear takes the moving line away and begins a new one where other output left
// off within its own; mu is held.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
	if p.open {
		fmt.Fprintln(p.out)
		p.open = false
	}
}

// line prints a finished or noteworthy stage.
func (p *progress) line(stage, text string) { p.paint("", stage, text) }

// state prints the state that something has come to.
func (p *progress) state(what, state string) {
	p.paint(stateColours[strings.ToLower(state)], what, state)
}

func (p *progress) paint(colour, stage, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	text = coloured(p.out, colour, oneLine(text))
	fmt.Fprintf(p.out, "%7.1fs  %-15s %s\n", time.Since(p.start).Seconds(), oneLine(stage), text)
}

// running names the stage that the moving line shows; "" hides it.
func (p *progress) running(stage string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = oneLine(stage)
	if p.current == "" && p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}

// beside returns a writer for an agent's output next to the stages.
func (p *progress) beside(w io.Writer) io.Writer {
	return besideWriter{p: p, w: forPeople(w), shared: isTerminal(w) || w == p.out}
}

type besideWriter struct {
	p      *progress
	w      io.Writer
	shared bool // with the stages
}

func (b besideWriter) Write(data []byte) (int, error) {
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	if b.p.shown {
		fmt.Fprint(b.p.out, "\r\x1b[K")
		b.p.shown = false
	}
	b.p.open = b.shared && len(data) > 0 && data[len(data)-1] != '\n'
	return b.w.Write(data)
}

// event shows one event of the daemon, if people care about it.
func (p *progress) event(e api.Event) {
	f := e.Fields
	now, finished, failed := f["step"], "", "failed: "
	if f["undo"] == "true" {
		now, finished, failed = "undo "+now, "undone, ", "not undone: "
	}
	switch e.Type {
	case lab.EventStepStarted:
		if !p.inGuest { // there, the host only waits
			p.running(now)
		}
	case lab.EventOperationCancel:
		p.running("")
		p.line(f["kind"], "cancelled; what it made is taken back")
	case lab.EventStepProgressed:
		p.running(fmt.Sprintf("%s: %s %s", f["step"], f["phase"], f["fraction"]))
	case lab.EventStepFinished:
		if !p.inGuest {
			p.running("")
		}
		p.line(f["step"], finished+took(f["took_ms"]))
	case lab.EventStepFailed:
		p.running("")
		p.paint(red, f["step"], failed+f["error"])
	case lab.EventVMStarted:
		p.line(f["step"], "started "+e.Message)
		if f["way"] == string(hypervisor.WayBoot) {
			p.line("boot", "the guest boots now: seconds with KVM, up to a few minutes where VMs are emulated")
		}
	case lab.EventGuestHello:
		p.line("hello", "from the guest, runner "+f["runner"])
	case lab.EventJobStageStarted:
		p.line(f["stage"], "in the guest")
		p.running(f["stage"])
		p.inGuest = true
	case lab.EventJobChanged:
		if lab.JobState(f["to"]).Ended() {
			p.running("")
			p.state("job", f["to"])
			p.inGuest = false
		}
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
