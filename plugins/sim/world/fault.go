package world

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Point is when a fault strikes.
type Point string

// Call is before a call looks at the world; it also reaches calls that only
// read and a guest's calls. Before and After are around an effect: before it
// nothing has changed, after it everything has but the answer is not sent. For a
// guest's call After is when the host has answered and the guest did not hear.
const (
	Call   Point = "call"
	Before Point = "before"
	After  Point = "after"
)

// Action is what a fault does.
type Action string

// Fail answers with Class. Hang answers nothing until the caller gives up, Deaf
// not even then. Delay answers late; at Before it is not possible. KillDaemon and
// KillPlugin end the parent of the plugin or itself with SIGKILL. The others are
// what no plugin should do, carried out by the plugin's process; but for those
// that end it, the call is answered as ever.
const (
	Fail       Action = "fail"
	Hang       Action = "hang"
	Deaf       Action = "deaf"
	Trickle    Action = "trickle" // answers a stream bit by bit for For, or 0: until the caller gives up
	Delay      Action = "delay"
	KillDaemon Action = "kill-daemon"
	KillPlugin Action = "kill-plugin"
	StopItself Action = "stop-itself" // with SIGSTOP
	Panic      Action = "panic"       // in a goroutine where nothing recovers it
	Exit       Action = "exit"        // with status 0, in the middle of a call
	Unplug     Action = "unplug"      // shuts its listener and its connections
	Babble     Action = "babble"      // binary data on standard output
	BadLog     Action = "bad-log"     // lines on standard error that are nearly log entries
	LongLine   Action = "long-line"   // of Bytes, on standard error
	Flood      Action = "flood"       // 100,000 lines a second on standard error, for For
	Spawn      Action = "spawn"       // leaves programs behind that hold standard error, one in a session of its own
	Grow       Action = "grow"        // takes Bytes of memory
)

// Fault is one entry of faults.json, a file {"faults": [...]} that is read
// again at each call. The first entry that fits is carried out.
type Fault struct {
	At      Point    `json:"at"`                // default Call
	Op      string   `json:"op,omitempty"`      // pattern of path.Match, "vm.*"; "" fits all
	Subject string   `json:"subject,omitempty"` // "" fits all
	Effect  uint64   `json:"effect,omitempty"`  // number of the effect; 0 fits all
	Skip    int      `json:"skip,omitempty"`    // lets so many pass first; counts down in the file
	Do      Action   `json:"do"`
	Times   int      `json:"times,omitempty"` // default 1, negative: always; counts down in the file
	Class   string   `json:"class,omitempty"` // for Fail, default unavailable
	Message string   `json:"message,omitempty"`
	For     Duration `json:"for,omitempty"`   // for Delay and Flood
	Bytes   int      `json:"bytes,omitempty"` // for LongLine and Grow
}

// Duration is a time.Duration that JSON writes as "150ms".
type Duration time.Duration

// MarshalText writes "150ms".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads "150ms".
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

type faultList struct {
	Faults []Fault `json:"faults"`
}

// SetFaults replaces faults.json.
func (w *World) SetFaults(ctx context.Context, faults ...Fault) error {
	release, err := w.settle(ctx)
	if err != nil {
		return err
	}
	defer release()
	return w.writeFaults(faultList{faults})
}

// Faults are those that have not struck yet.
func (w *World) Faults() ([]Fault, error) {
	var list faultList
	_, err := w.readJSON(faultsFile, &list)
	return list.Faults, err
}

func (w *World) writeFaults(list faultList) error {
	content, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return fault.New(fault.Internal, "encode the faults: %w", err)
	}
	return w.write(faultsFile, content)
}

// Reach is called at the start of each call and carries out the faults waiting
// there.
func (w *World) Reach(ctx context.Context, op, subject string) error {
	return w.pass(ctx, Call, op, subject)
}

// Answered is called when the host has answered a guest's call, before the guest
// hears of it, and carries out the faults waiting there.
func (w *World) Answered(ctx context.Context, op, subject string) error {
	return w.pass(ctx, After, op, subject)
}

func (w *World) pass(ctx context.Context, at Point, op, subject string) error {
	faults, err := w.Faults()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(faults, func(f Fault) bool { return f.fits(at, op, subject, 0) }) {
		return ctx.Err()
	}
	release, err := w.settle(ctx)
	if err != nil {
		return err
	}
	f, err := w.take(at, op, subject, 0)
	release()
	if err != nil || f == nil {
		return err
	}
	return w.carryOut(ctx, f)
}

func (f Fault) fits(at Point, op, subject string, effect uint64) bool {
	if f.At == "" {
		f.At = Call
	}
	matched := f.Op == ""
	if !matched {
		matched, _ = path.Match(f.Op, op)
	}
	return matched && f.At == at && (f.Subject == "" || f.Subject == subject) && (f.Effect == 0 || f.Effect == effect)
}

// take finds the first fault that fits and counts it down. The lock is held.
func (w *World) take(at Point, op, subject string, effect uint64) (*Fault, error) {
	var list faultList
	if _, err := w.readJSON(faultsFile, &list); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list.Faults, func(f Fault) bool { return f.fits(at, op, subject, effect) })
	if i < 0 {
		return nil, nil
	}
	f := list.Faults[i]
	switch {
	case f.Skip > 0:
		list.Faults[i].Skip--
		return nil, w.writeFaults(list)
	case f.Times < 0:
		return &f, nil
	case f.Times <= 1:
		list.Faults = slices.Delete(list.Faults, i, i+1)
	default:
		list.Faults[i].Times--
	}
	return &f, w.writeFaults(list)
}

// carryOut does what the fault says. The lock is not held.
func (w *World) carryOut(ctx context.Context, f *Fault) error {
	switch f.Do {
	case Fail:
		class := fault.Class(f.Class)
		if f.Class == "" {
			class = fault.Unavailable
		}
		message := f.Message
		if message == "" {
			message = "simulated failure"
		}
		return fault.New(class, "%s", message)
	case Hang:
		<-ctx.Done()
		return fmt.Errorf("hang as asked: %w", ctx.Err())
	case Trickle:
		return trickle(ctx, time.Duration(f.For))
	case Deaf:
		select {}
	case Delay:
		if f.At == Before {
			break
		}
		return pause(ctx, time.Duration(f.For))
	default:
		return w.act(*f)
	}
	return fault.New(fault.Internal, "faults.json asks for %q at %q, which is not possible", f.Do, f.At)
}

type progressKey struct{}

// WithProgress tells Trickle how to answer a bit.
func WithProgress(ctx context.Context, answer func()) context.Context {
	return context.WithValue(ctx, progressKey{}, answer)
}

func trickle(ctx context.Context, how time.Duration) error {
	answer, ok := ctx.Value(progressKey{}).(func())
	if !ok {
		return fault.New(fault.Internal, "faults.json asks for %q of a call that is no stream", Trickle)
	}
	for end := time.Now().Add(how); how == 0 || time.Now().Before(end); {
		answer()
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
