package pluginhost

import (
	"fmt"
	"slices"
	"time"
)

// State of a plugin.
type State string

// The states.
const (
	Starting    State = "starting"    // a process is on its way; calls wait for it
	Ready       State = "ready"       // calls work
	Degraded    State = "degraded"    // it runs, but says that calls may fail, or does not answer
	Backoff     State = "backoff"     // it failed, and is started again in a moment
	Quarantined State = "quarantined" // it failed so often that it is only tried now and then
	Failed      State = "failed"      // its configuration is wrong: only another one helps
	Stopped     State = "stopped"
)

// transitions says which state may follow which. A plugin that is swapped stays
// as it is.
var transitions = map[State][]State{
	Stopped:     {Starting, Ready},
	Starting:    {Ready, Starting, Backoff, Quarantined, Failed, Stopped},
	Ready:       {Ready, Degraded, Starting, Backoff, Quarantined, Stopped},
	Degraded:    {Ready, Degraded, Starting, Backoff, Quarantined, Stopped},
	Backoff:     {Starting, Ready, Stopped},
	Quarantined: {Starting, Ready, Stopped},
	Failed:      {Starting, Ready, Stopped},
}

func mayFollow(from, to State) bool { return slices.Contains(transitions[from], to) }

// Status is how one plugin stands.
type Status struct {
	Kind, Name   string
	Version      string // "" before it first came up
	State        State
	Since        time.Time // of the state
	Reason       string    // why it is not ready, or was not just now; without times
	FailedAt     time.Time // when Reason came about
	NextStart    time.Time // zero unless it waits for its next start
	CrashID      string    // report about Reason, "" for none
	Path         string
	PID          int // 0 when not running
	Capabilities []string
	StartedAt    time.Time // of the present process
	Restarts     int       // processes after the first
}

// Turn is what an operator wants to find again later in a plugin's life: it failed,
// or it is ready again.
type Turn struct {
	Kind, Name, Version string
	State               State  // Backoff, Quarantined, Failed, Starting: at once; or Ready
	Reason, CrashID     string // of a failure
	PID                 int    // of the process that is ready
}

// Message says in one line why the plugin is not ready and what comes next; ""
// when it is. Only a wrong configuration takes several lines.
func (s Status) Message(now time.Time) string {
	switch s.State {
	case Ready, Stopped:
		return ""
	case Degraded, Failed:
		return s.Reason
	}
	if s.Reason == "" {
		return ""
	}
	text := fmt.Sprintf("%s (%s ago)", s.Reason, brief(now.Sub(s.FailedAt)))
	wait := brief(s.NextStart.Sub(now))
	switch s.State {
	case Backoff:
		return text + ", restarting in " + wait
	case Quarantined:
		return text + ", tried again in " + wait
	}
	return text + ", restarting"
}

// brief is a duration as people say it: "1.2 s", "40 s", "3 min".
func brief(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%.0f h", d.Hours())
}
