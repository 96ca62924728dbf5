package state

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// seenEvery is how exact last_seen is: signs of life come every few seconds
// from every guest, and each write costs a sync of the disk.
const seenEvery = 10 * time.Second

const jobColumns = `id, sandbox_id, state, reason, exit_code, task, profile, repo_url, repo_id, ref, mode, ttl, borrowed, stage,
	cancel_requested, report, last_seen, created_at, started_at, deadline, ended_at`

func scanJob(row scanner) (j lab.Job, err error) {
	var report string
	var ttl, seen, created, started, deadline, ended int64
	err = row.Scan(&j.ID, &j.SandboxID, &j.State, &j.Reason, &j.ExitCode, &j.Task, &j.Profile, &j.RepoURL, &j.RepoID,
		&j.Ref, &j.Mode, &ttl, &j.Borrowed, &j.Stage, &j.CancelRequested, &report, &seen, &created, &started, &deadline, &ended)
	if err != nil {
		return j, err
	}
	j.TTL = time.Duration(ttl) * time.Millisecond
	j.LastSeen, j.CreatedAt, j.StartedAt = fromMillis(seen), fromMillis(created), fromMillis(started)
	j.Deadline, j.EndedAt = fromMillis(deadline), fromMillis(ended)
	if report != "" {
		j.Reported = new(lab.JobReport)
		err = json.Unmarshal([]byte(report), j.Reported)
	}
	return j, err
}

func (t *tx) insertJob(ctx context.Context, j lab.Job) error {
	err := t.exec(ctx, `INSERT INTO jobs (`+jobColumns+`) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,'',?,?,?,?,?)`,
		j.ID, j.SandboxID, j.State, j.Reason, j.ExitCode, j.Task, j.Profile, j.RepoURL, j.RepoID, j.Ref, j.Mode, j.TTL.Milliseconds(), j.Borrowed, j.Stage,
		j.CancelRequested, millis(j.LastSeen), millis(j.CreatedAt), millis(j.StartedAt), millis(j.Deadline), millis(j.EndedAt))
	if err != nil {
		return err
	}
	if j.RepoID != "" {
		if err := t.takeRepo(ctx, j.RepoID, j.ID); err != nil {
			return err
		}
	}
	return t.emit(ctx, lab.Event{Type: lab.EventJobQueued, SandboxID: j.SandboxID, JobID: j.ID})
}

// Job gives the job of that id, or fault.NotFound.
func (s *Store) Job(ctx context.Context, id string) (lab.Job, error) {
	return readJob(ctx, s.reader, id)
}

func readJob(ctx context.Context, q queryer, id string) (lab.Job, error) {
	return one(ctx, q, scanJob, "job "+id, `SELECT `+jobColumns+` FROM jobs WHERE id = ?`, id)
}

// JobFilter selects jobs; the zero value selects all.
type JobFilter struct {
	SandboxID string
	Limit     int // of the newest; 0 is no limit
}

// Jobs lists, oldest first.
func (s *Store) Jobs(ctx context.Context, f JobFilter) ([]lab.Job, error) {
	var w where
	w.equal("sandbox_id", f.SandboxID)
	return many(ctx, s.reader, scanJob, "jobs", newest(`SELECT seq, `+jobColumns+` FROM jobs`, jobColumns, &w, f.Limit), w.args...)
}

// StrandedJobs lists jobs that have not ended although no open operation of
// their sandbox is left to end them.
func (s *Store) StrandedJobs(ctx context.Context) ([]lab.Job, error) {
	return many(ctx, s.reader, scanJob, "stranded jobs", `SELECT `+jobColumns+` FROM jobs j WHERE ended_at = 0 AND NOT EXISTS (
		SELECT 1 FROM operations o WHERE o.subject = j.sandbox_id AND o.ended_at = 0) ORDER BY seq`)
}

// JobSeen records a sign of life of the job's guest, and the stage that begins
// when it is a new one. cancel tells the guest to stop: somebody asked for it,
// or the job has ended already.
func (s *Store) JobSeen(ctx context.Context, jobID, stage string, at time.Time) (cancel bool, err error) {
	j, err := s.Job(ctx, jobID)
	if err != nil || j.State.Ended() {
		return true, err
	}
	fresh := stage == "" || stage == j.Stage
	if fresh && !j.LastSeen.IsZero() && at.Sub(j.LastSeen) < seenEvery {
		return j.CancelRequested, nil
	}
	err = s.write(ctx, "record sign of life", func(ctx context.Context, t *tx) error {
		if j, err = readJob(ctx, t, jobID); err != nil || j.State.Ended() {
			return err
		}
		t.touched[j.SandboxID] = true
		if stage != "" && stage != j.Stage {
			err := t.emit(ctx, lab.Event{
				Type: lab.EventJobStageStarted, SandboxID: j.SandboxID, JobID: j.ID, At: at,
				Message: stage, Fields: map[string]string{"stage": stage},
			})
			if err != nil {
				return err
			}
			j.Stage = stage
		}
		return t.exec(ctx, `UPDATE jobs SET last_seen = max(last_seen, ?), stage = ? WHERE id = ?`, millis(at), j.Stage, j.ID)
	})
	return j.CancelRequested || j.State.Ended(), err
}

// JobReported records the guest's final word. The first one stands; later ones,
// and those about a job that has ended, change nothing and are no error.
func (s *Store) JobReported(ctx context.Context, jobID string, r lab.JobReport) error {
	if r.At.IsZero() {
		r.At = time.Now()
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fault.New(fault.Internal, "encode report: %w", err)
	}
	return s.write(ctx, "record report", func(ctx context.Context, t *tx) error {
		j, err := readJob(ctx, t, jobID)
		if err != nil || j.Reported != nil || j.State.Ended() {
			return err
		}
		if err := t.exec(ctx, `UPDATE jobs SET report = ?, last_seen = max(last_seen, ?) WHERE id = ?`, string(b), millis(r.At), j.ID); err != nil {
			return err
		}
		return t.emit(ctx, lab.Event{
			Type: lab.EventJobReported, SandboxID: j.SandboxID, JobID: j.ID, At: r.At, Message: r.Message,
			Fields: map[string]string{"status": r.Status, "exit_code": strconv.Itoa(r.ExitCode), "uploaded": strconv.FormatBool(r.Uploaded)},
		})
	})
}

// RequestCancel asks for the end of a job. Asking again is no error; a job that
// has ended is fault.Precondition. A create-sandbox that still runs for the job
// is asked to stop with it.
func (s *Store) RequestCancel(ctx context.Context, jobID string) error {
	return s.write(ctx, "request cancel", func(ctx context.Context, t *tx) error {
		return t.cancelJob(ctx, jobID)
	})
}

func (t *tx) cancelJob(ctx context.Context, jobID string) error {
	j, err := readJob(ctx, t, jobID)
	if err != nil {
		return err
	}
	if j.State.Ended() {
		return fault.New(fault.Precondition, "job %s has ended: %s", j.ID, j.State).WithResource("job %s", j.ID)
	}
	if j.CancelRequested {
		return nil
	}
	if err := t.exec(ctx, `UPDATE jobs SET cancel_requested = 1 WHERE id = ?`, j.ID); err != nil {
		return err
	}
	err = t.exec(ctx, `UPDATE operations SET cancel = 1 WHERE subject = ? AND kind = ? AND ended_at = 0`, j.SandboxID, lab.OpCreateSandbox)
	if err != nil {
		return err
	}
	return t.emit(ctx, lab.Event{Type: lab.EventCancelRequested, SandboxID: j.SandboxID, JobID: j.ID})
}

// JobChange is one step of a job to another state.
type JobChange struct {
	ID        string
	To        lab.JobState
	Reason    string
	ExitCode  *int
	StartedAt time.Time // set when not zero
	Deadline  time.Time // set when not zero
}

// apply does nothing when the job is in that state, or has ended: the first
// outcome stands.
func (c JobChange) apply(ctx context.Context, t *tx) error {
	j, err := readJob(ctx, t, c.ID)
	if err != nil || j.State == c.To || j.State.Ended() {
		return err
	}
	if err := j.State.To(c.To); err != nil {
		return fault.New(fault.Precondition, "job %s: %w", j.ID, err)
	}
	if c.ExitCode != nil {
		j.ExitCode = *c.ExitCode
	}
	if !c.StartedAt.IsZero() {
		j.StartedAt = c.StartedAt
	}
	if !c.Deadline.IsZero() {
		j.Deadline = c.Deadline
	}
	var ended time.Time
	if c.To.Ended() {
		ended = t.now
	}
	ok, err := t.change(ctx, `UPDATE jobs SET state = ?, reason = ?, exit_code = ?, started_at = ?, deadline = ?, ended_at = ? WHERE id = ? AND state = ?`,
		c.To, c.Reason, j.ExitCode, millis(j.StartedAt), millis(j.Deadline), millis(ended), j.ID, j.State)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Conflict, "job %s was changed by somebody else", j.ID)
	}
	return t.emit(ctx, lab.Event{
		Type: lab.EventJobChanged, SandboxID: j.SandboxID, JobID: j.ID, Message: c.Reason,
		Fields: map[string]string{"from": string(j.State), "to": string(c.To), "reason": c.Reason},
	})
}

// String names the change in errors.
func (c JobChange) String() string { return fmt.Sprintf("job %s to %s", c.ID, c.To) }
