package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/version"
)

// What doctor takes for noteworthy.
const (
	diskLow       = 5 << 30 // bytes free
	diskFull      = 1 << 30
	failedFor     = 24 * time.Hour // a failed operation is news
	stuckAttempts = 5
	stuckPast     = 5 * time.Minute // beyond a step's deadline
	stuckUndoing  = 15 * time.Minute
)

func (d *doctor) found(level, source, id, message, fix string) {
	d.Findings = append(d.Findings, api.Finding{Source: source, ID: id, Level: level, Message: message, Fix: fix})
}

// note tells that something could not be looked at.
func (d *doctor) note(what string, err error) {
	if err != nil {
		d.found(api.LevelError, what, string(fault.ClassOf(err)), "could not be read: "+err.Error(), fault.HintOf(err))
	}
}

func (d *doctor) judgeDaemon() {
	if d.down != nil {
		d.found(api.LevelError, "daemon", "unreachable", d.down.Error(), fault.HintOf(d.down))
		return
	}
	d.found(api.LevelOK, "daemon", "reachable", fmt.Sprintf("agentlabd %s, up %s", d.status.Version, age(time.Since(d.status.StartedAt))), "")
	if own := version.String(); d.status.Version != own {
		d.found(api.LevelWarning, "daemon", "version", fmt.Sprintf("it is version %s, this program is %s", d.status.Version, own),
			"install the same version of both")
	}
}

func (d *doctor) judgePlugins() {
	for _, p := range d.status.Plugins {
		source := "plugin " + p.Kind + " " + p.Name
		level := api.LevelError
		switch p.State {
		case "ready":
			d.found(api.LevelOK, source, "state", "is ready", "")
			continue
		case "starting", "degraded":
			level = api.LevelWarning
		}
		message := "is " + p.State
		if p.Message != "" {
			message += ": " + p.Message
		}
		d.found(level, source, "state", message, "agentlab plugin info "+p.Kind+" tells more, and the daemon's log what it printed")
	}
}

func (d *doctor) judgeDisk() {
	level, fix := api.LevelOK, ""
	switch free := d.status.DiskFreeBytes; {
	case free < diskFull:
		level = api.LevelError
	case free < diskLow:
		level = api.LevelWarning
	}
	if level != api.LevelOK {
		fix = "free space under data_dir; agentlab job list shows jobs whose artifacts take some"
	}
	d.found(level, "disk", "space", bytesText(d.status.DiskFreeBytes)+" are free where artifacts are kept", fix)
}

// judgeProfiles also has each profile checked: a job is refused for a bundle that does
// not open or a template that has gone, and nothing else tells before.
func (d *doctor) judgeProfiles(ctx context.Context) {
	for _, f := range lineFindings("profiles", d.profiles.Problems) {
		f.Level = api.LevelWarning // the others work
		d.Findings = append(d.Findings, f)
	}
	if len(d.profiles.Items) == 0 {
		d.found(api.LevelWarning, "profiles", "none", "there is no usable profile", "put one into the daemon's profiles_dir")
		return
	}
	usable := 0
	for _, p := range d.profiles.Items {
		check, err := d.c.CheckProfile(ctx, p.Name)
		d.note("profile "+p.Name, err)
		wrong := slices.DeleteFunc(check.Findings, func(f api.Finding) bool {
			return f.ID == string(fault.Unavailable) // a plugin is away, which is told already
		})
		for _, f := range wrong {
			f.Level = api.LevelWarning // the others work
			d.Findings = append(d.Findings, f)
		}
		if err == nil && len(wrong) == 0 {
			usable++
		}
	}
	d.found(api.LevelOK, "profiles", "usable", fmt.Sprintf("%d are usable", usable), "")
}

func (d *doctor) judgeOperations() {
	for _, o := range d.status.FailedOperations {
		if o.EndedAt != nil && time.Since(*o.EndedAt) > failedFor {
			continue
		}
		fix := o.Hint
		if fix == "" {
			fix = "agentlab operation show " + o.ID
		}
		d.found(api.LevelWarning, "operation "+o.ID, "failed", failedText(o), fix)
	}
	stuck := 0
	for _, o := range d.open {
		if why := stuckText(o); why != "" {
			stuck++
			fix := "agentlab operation show " + o.ID + " tells its steps"
			if lab.OperationKind(o.Kind) != lab.OpDestroySandbox && o.State != string(lab.OpUndoing) {
				fix += "; agentlab operation cancel " + o.ID + " stops it"
			}
			d.found(api.LevelError, "operation "+o.ID, "stuck", why, fix)
		}
	}
	if stuck == 0 {
		d.found(api.LevelOK, "operations", "open", fmt.Sprintf("%d are open, none is stuck", len(d.open)), "")
	}
}

func failedText(o api.Operation) string {
	reason, _, _ := strings.Cut(o.Error, "\n")
	text := o.Kind + " failed"
	if o.EndedAt != nil {
		text += " " + age(time.Since(*o.EndedAt)) + " ago"
	}
	return text + " at " + reason
}

// stuckText says why an open operation will hardly end by itself, or "".
func stuckText(o api.Operation) string {
	cause := ""
	if o.Error != "" {
		reason, _, _ := strings.Cut(o.Error, "\n")
		cause = ": " + reason
	}
	switch {
	case o.Attempt >= stuckAttempts:
		return fmt.Sprintf("%s is at attempt %d of %s%s", o.Kind, o.Attempt, o.Step, cause)
	case o.Deadline != nil && time.Since(*o.Deadline) > stuckPast:
		return fmt.Sprintf("%s is %s past the deadline of %s%s", o.Kind, age(time.Since(*o.Deadline)), o.Step, cause)
	case o.State == string(lab.OpUndoing) && o.UpdatedAt != nil && time.Since(*o.UpdatedAt) > stuckUndoing:
		return fmt.Sprintf("%s has been undoing %s for %s%s", o.Kind, o.Step, age(time.Since(*o.UpdatedAt)), cause)
	}
	return ""
}

// judgeSubject tells of the sandbox and job that were asked about.
func (d *doctor) judgeSubject() {
	if s := d.sandbox; s != nil {
		d.found(stateLevel(s.State), "sandbox "+s.Name, "state", withReason("is "+s.State, s.Reason), "")
	}
	if j := d.job; j != nil {
		d.found(stateLevel(j.State), "job "+j.ID, "state", withReason("is "+j.State, j.Reason), "")
	}
}

func stateLevel(state string) string {
	if state == string(lab.SandboxFailed) || state == string(lab.JobTimeout) {
		return api.LevelWarning
	}
	return api.LevelOK
}

func withReason(text, reason string) string {
	if reason == "" {
		return text
	}
	return text + ": " + reason
}
