package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
)

// Limits of events: what is shown without flags, and what the daemon gives.
const (
	eventsTail    = 100
	eventsTailMax = 1000
)

func eventsCommand() cli.Command {
	var q client.EventQuery
	var since moment
	var types eventTypes
	tail := cli.Count{Most: eventsTailMax}
	var follow bool
	return cli.Command{
		Name: "events", Synopsis: "print what happened, and with -f what happens",
		Help: `
Prints the newest events, oldest first, one per line; with -f it goes on until
Ctrl-C, also through a restart of the daemon, and prints no event twice.
--since takes a time or how long ago it was, and then prints all events from
there on unless --tail says how many. --type takes a type of event, or the word
before the dot for all of its kind: job.changed, job. With --json each line is
one event.`,
		Answers: []cli.Answer{{Name: "event", Type: reflect.TypeFor[api.Event](), Lines: true}},
		Flags: func(fs *flag.FlagSet) {
			fs.BoolVar(&follow, "f", false, "follow")
			fs.Var(&tail, "tail", "only the last events, a `number` up to 1000 (default: 100, or all with --since)")
			fs.Var(&since, "since", "only from this `time` on: 2h ago, or 2026-01-02T15:04:05")
			fs.StringVar(&q.SandboxID, "sandbox", "", "only of this `sandbox`, by VMID, name or id")
			fs.StringVar(&q.JobID, "job", "", "only of this `job`")
			fs.Var(&types, "type", "only of this `type`; may be given more than once")
		},
		Run: func(ctx context.Context, env *cli.Env, _ []string) error {
			q.Tail = tail.N
			q.Since, q.Types, q.Once = since.Time, types, !follow
			if q.Tail == 0 && q.Since.IsZero() {
				q.Tail = eventsTail
			}
			return quiet(ctx, printEvents(ctx, env, q))
		},
	}
}

func printEvents(ctx context.Context, env *cli.Env, q client.EventQuery) error {
	c, err := connect(env)
	if err != nil {
		return err
	}
	defer c.Close()
	for e, err := range c.Events(ctx, q) {
		if err != nil {
			return err
		}
		if env.Global.JSON {
			if err := writeJSON(env.Out, e, ""); err != nil {
				return err
			}
			continue
		}
		printSubjectEvent(env.Out, e)
	}
	return nil
}

// printSubjectEvent is printEvent with what the event is about.
func printSubjectEvent(w io.Writer, e api.Event) {
	subject := cmp.Or(e.JobID, e.SandboxID, "-")
	fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s  %-20s  %-26s %s", eventTime(e), oneLine(subject), oneLine(e.Type), oneLine(eventText(e))), " "))
}

// moment is the value of a flag: a time, or how long ago it was.
type moment struct{ time.Time }

// String gives "" for no time, so that help shows no default.
func (m *moment) String() string {
	if m == nil || m.IsZero() {
		return ""
	}
	return m.Format(time.RFC3339)
}

// Set implements flag.Value. A time without a zone is of this machine's.
func (m *moment) Set(s string) error {
	var ago cli.Duration
	if ago.Set(s) == nil {
		m.Time = time.Now().Add(-time.Duration(ago))
		return nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			m.Time = t
			return nil
		}
	}
	return fmt.Errorf("%q is neither a time such as 2026-01-02T15:04:05 nor a duration such as 2h", s)
}

// eventTypes collects types of events; the word before the dot stands for all
// that begin with it.
type eventTypes []string

// String implements flag.Value.
func (t *eventTypes) String() string {
	if t == nil {
		return ""
	}
	return strings.Join(*t, ",")
}

// Set implements flag.Value.
func (t *eventTypes) Set(s string) error {
	for word := range strings.SplitSeq(s, ",") {
		found := slices.DeleteFunc(lab.EventTypes(), func(known string) bool {
			return known != word && !strings.HasPrefix(known, word+".")
		})
		if len(found) == 0 {
			return unknownType(word)
		}
		*t = append(*t, found...)
	}
	return nil
}

// eventWords are all types, and the words before their dots.
func eventWords() []string {
	words := lab.EventTypes()
	for _, name := range lab.EventTypes() {
		group, _, _ := strings.Cut(name, ".")
		words = append(words, group)
	}
	slices.Sort(words)
	return slices.Compact(words)
}

func unknownType(word string) error {
	if near := cli.Nearest(word, eventWords()); near != "" {
		return fmt.Errorf("there is no event %q; did you mean %s?", word, near)
	}
	return fmt.Errorf("there is no event %q; there are %s", word, strings.Join(lab.EventTypes(), ", "))
}
