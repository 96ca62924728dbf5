package control

import (
	"slices"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
)

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// newestFirst turns a listing of the store around.
func newestFirst[T any](rows []T) []T {
	slices.Reverse(rows)
	return rows
}

// each converts a listing; it is never nil, so that JSON shows [].
func each[A, B any](in []A, f func(A) B) api.List[B] {
	out := make([]B, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return api.List[B]{Items: out}
}

func apiSandbox(s lab.Sandbox) api.Sandbox {
	out := api.Sandbox{
		ID: s.ID, Name: s.Name, VMID: s.VMID, State: string(s.State), Reason: s.Reason,
		Profile: s.Profile, Template: s.Spec.Template, MAC: s.MAC, Network: s.Spec.NetworkMode,
		Cores: s.Spec.Cores, MemoryMB: s.Spec.MemoryMB, SSHUser: s.Spec.SSHUser, HostKey: s.HostKey,
		JobID: s.JobID, Keep: s.Keep, CreatedAt: s.CreatedAt.UTC(), ReadyAt: when(s.ReadyAt),
		ExpiresAt: when(s.ExpiresAt), EndedAt: when(s.EndedAt),
	}
	if s.Address.IsValid() {
		out.Address = s.Address.String()
	}
	return out
}

func apiJob(j lab.Job) api.Job {
	out := api.Job{
		ID: j.ID, SandboxID: j.SandboxID, State: string(j.State), Reason: j.Reason, Stage: j.Stage,
		Task: j.Task, Profile: j.Profile, Repo: j.RepoURL, Ref: j.Ref, CreatedAt: j.CreatedAt.UTC(),
		StartedAt: when(j.StartedAt), Deadline: when(j.Deadline), EndedAt: when(j.EndedAt),
	}
	if !j.StartedAt.IsZero() && j.TTL > 0 { // the host's own is later: it waits for the guest's last words
		out.Deadline = when(j.StartedAt.Add(j.TTL))
	}
	if out.Repo == "" {
		out.Repo = j.RepoID
	}
	if j.State.Ended() {
		out.Stage = ""
	}
	if j.ExitCode >= 0 && j.State.Ended() {
		code := j.ExitCode
		out.ExitCode = &code
	}
	if j.Reported != nil {
		out.Commit = j.Reported.Commit
	}
	return out
}

func apiOperation(o lab.Operation) api.Operation {
	return api.Operation{
		ID: o.ID, Kind: string(o.Kind), SandboxID: o.Subject, JobID: o.JobID, State: string(o.State),
		Step: o.Step, Attempt: o.Attempt, Error: o.Error, Class: o.ErrorClass, Hint: o.Hint, CancelRequested: o.Cancel,
		CreatedAt: o.CreatedAt.UTC(), UpdatedAt: when(o.UpdatedAt), RetryAt: when(o.NotBefore), Deadline: when(o.Deadline),
		EndedAt: when(o.EndedAt),
	}
}

func apiEvent(e lab.Event) api.Event {
	return api.Event{
		ID: e.ID, At: e.At.UTC(), Type: e.Type, SandboxID: e.SandboxID, JobID: e.JobID,
		Operation: e.Operation, Message: e.Message, Fields: e.Fields,
	}
}

func apiProfile(name string, s lab.Spec) api.Profile {
	return api.Profile{
		Name: name, Template: s.Template, Cores: s.Cores, MemoryMB: s.MemoryMB, DiskGB: s.DiskGB,
		NetworkMode: s.NetworkMode, NetworkAllow: s.NetworkAllow, AgentCommand: s.AgentCommand,
		AgentMode: s.AgentMode, InnerSandbox: s.InnerSandbox, SecretsBundle: s.Bundle,
		OnJobEnd: s.OnJobEnd, TTLSeconds: int64(s.TTL / time.Second),
	}
}
