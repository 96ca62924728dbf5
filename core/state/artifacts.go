package state

import (
	"context"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

const artifactColumns = `job_id, path, size, sha256, mime, flagged, created_at`

func scanArtifact(row scanner) (a lab.Artifact, err error) {
	var created int64
	err = row.Scan(&a.JobID, &a.Path, &a.Size, &a.SHA256, &a.MIME, &a.Flagged, &created)
	a.CreatedAt = fromMillis(created)
	return a, err
}

// PutArtifact records a file of a job, or replaces the row of the same path. A
// file that is as its row says is no news: nothing changes, and no event.
func (s *Store) PutArtifact(ctx context.Context, a lab.Artifact) error {
	if a.CreatedAt.IsZero() {
		a.CreatedAt = time.Now()
	}
	return s.write(ctx, "record artifact", func(ctx context.Context, t *tx) error {
		j, err := readJob(ctx, t, a.JobID)
		if err != nil {
			return err
		}
		news, err := t.change(ctx, `INSERT INTO artifacts (`+artifactColumns+`) VALUES (?,?,?,?,?,?,?)
			ON CONFLICT (job_id, path) DO UPDATE SET size = excluded.size, sha256 = excluded.sha256, mime = excluded.mime,
				flagged = excluded.flagged, created_at = excluded.created_at
			WHERE (size, sha256, flagged) <> (excluded.size, excluded.sha256, excluded.flagged)`,
			a.JobID, a.Path, a.Size, a.SHA256, a.MIME, a.Flagged, millis(a.CreatedAt))
		if err != nil || !news {
			return err
		}
		err = t.emit(ctx, lab.Event{
			Type: lab.EventArtifactStored, SandboxID: j.SandboxID, JobID: j.ID, Message: a.Path,
			Fields: map[string]string{"path": a.Path, "size": strconv.FormatInt(a.Size, 10)},
		})
		if err != nil || a.Flagged == "" {
			return err
		}
		return t.emit(ctx, lab.Event{
			Type: lab.EventArtifactFlagged, SandboxID: j.SandboxID, JobID: j.ID, Message: a.Path + " " + a.Flagged,
			Fields: map[string]string{"path": a.Path, "flagged": a.Flagged},
		})
	})
}

// ForgetArtifacts removes the rows of an ended job's files. The files follow: who
// asks for one meanwhile is told that there is none. Gone is success.
func (s *Store) ForgetArtifacts(ctx context.Context, jobID string) error {
	return s.write(ctx, "forget artifacts", func(ctx context.Context, t *tx) error {
		j, err := readJob(ctx, t, jobID)
		if err != nil {
			return err
		}
		if !j.State.Ended() {
			return fault.New(fault.Precondition, "job %s is %s", jobID, j.State)
		}
		list, err := many(ctx, t, scanArtifact, "artifacts", `SELECT `+artifactColumns+` FROM artifacts WHERE job_id = ?`, jobID)
		if err != nil || len(list) == 0 {
			return err
		}
		var size int64
		for _, a := range list {
			size += a.Size
		}
		if err := t.exec(ctx, `DELETE FROM artifacts WHERE job_id = ?`, jobID); err != nil {
			return err
		}
		return t.emit(ctx, lab.Event{
			Type: lab.EventArtifactsEnded, SandboxID: j.SandboxID, JobID: jobID,
			Fields: map[string]string{"files": strconv.Itoa(len(list)), "bytes": strconv.FormatInt(size, 10)},
		})
	})
}

// Artifacts lists a job's files by path.
func (s *Store) Artifacts(ctx context.Context, jobID string) ([]lab.Artifact, error) {
	return many(ctx, s.reader, scanArtifact, "artifacts", `SELECT `+artifactColumns+` FROM artifacts WHERE job_id = ? ORDER BY path`, jobID)
}

// ArtifactUsage gives the number and bytes of a job's files, from counters.
func (s *Store) ArtifactUsage(ctx context.Context, jobID string) (files int, bytes int64, err error) {
	rows, err := many(ctx, s.reader, func(row scanner) (n counter, err error) {
		return n, row.Scan(&n.name, &n.value)
	}, "artifact usage of job "+strconv.Quote(jobID), `SELECT name, value FROM counters WHERE name IN ('job_files', 'job_bytes') AND key = ?`, jobID)
	for _, n := range rows {
		if n.name == "job_files" {
			files = int(n.value)
		} else {
			bytes = n.value
		}
	}
	return files, bytes, err
}
