package state

import (
	"context"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// repoCollected is what has an upload that no job took in its time.
const repoCollected = "collected"

// Repo is an uploaded repository.
type Repo struct {
	ID        string
	Size      int64  // bytes
	UsedBy    string // job id, "" for none yet, repoCollected for none ever
	CreatedAt time.Time
}

func scanRepo(row scanner) (r Repo, err error) {
	var created int64
	err = row.Scan(&r.ID, &r.Size, &r.UsedBy, &created)
	r.CreatedAt = fromMillis(created)
	return r, err
}

const repoColumns = `id, size, used_by, created_at`

// PutRepo records an upload. An id that is taken is fault.Exists.
func (s *Store) PutRepo(ctx context.Context, r Repo) error {
	return s.write(ctx, "record repository", func(ctx context.Context, t *tx) error {
		if r.CreatedAt.IsZero() {
			r.CreatedAt = t.now
		}
		return t.exec(ctx, `INSERT INTO repos (`+repoColumns+`) VALUES (?,?,?,?)`, r.ID, r.Size, r.UsedBy, millis(r.CreatedAt))
	})
}

// Repo gives the upload of that id, or fault.NotFound.
func (s *Store) Repo(ctx context.Context, id string) (Repo, error) {
	return one(ctx, s.reader, scanRepo, "repository "+id, `SELECT `+repoColumns+` FROM repos WHERE id = ?`, id)
}

// CollectRepos lists uploads that nothing needs: those whose job has ended, and
// those from before the given time that no job took. The latter cannot be taken
// any more. The caller removes the file, then the row.
func (s *Store) CollectRepos(ctx context.Context, before time.Time) (out []Repo, err error) {
	err = s.write(ctx, "collect repositories", func(ctx context.Context, t *tx) error {
		err := t.exec(ctx, `UPDATE repos SET used_by = ? WHERE used_by = '' AND created_at < ?`, repoCollected, millis(before))
		if err != nil {
			return err
		}
		out, err = many(ctx, t, scanRepo, "repositories", `SELECT `+repoColumns+` FROM repos
			WHERE used_by = ? OR EXISTS (SELECT 1 FROM jobs j WHERE j.id = used_by AND j.ended_at <> 0) ORDER BY created_at`, repoCollected)
		return err
	})
	return out, err
}

// takeRepo makes the upload the job's, once.
func (t *tx) takeRepo(ctx context.Context, id, jobID string) error {
	ok, err := t.change(ctx, `UPDATE repos SET used_by = ? WHERE id = ? AND used_by = ''`, jobID, id)
	if err == nil && !ok {
		err = fault.New(fault.Precondition, "uploaded repository %q is gone or belongs to another job", id).WithHint("upload it again")
	}
	return err
}

// GiveUpRepo keeps jobs from taking an upload that none took yet: the caller
// removes the file, then the row. fault.Precondition: a job has it.
func (s *Store) GiveUpRepo(ctx context.Context, id string) error {
	return s.write(ctx, "give up repository", func(ctx context.Context, t *tx) error {
		r, err := one(ctx, t, scanRepo, "repository "+id, `SELECT `+repoColumns+` FROM repos WHERE id = ?`, id)
		switch {
		case err != nil:
			return err
		case r.UsedBy != "" && r.UsedBy != repoCollected:
			return fault.New(fault.Precondition, "uploaded repository %q belongs to job %s", id, r.UsedBy)
		}
		return t.exec(ctx, `UPDATE repos SET used_by = ? WHERE id = ?`, repoCollected, id)
	})
}

// DeleteRepo forgets an upload. Gone is success.
func (s *Store) DeleteRepo(ctx context.Context, id string) error {
	return s.write(ctx, "delete repository", func(ctx context.Context, t *tx) error {
		return t.exec(ctx, `DELETE FROM repos WHERE id = ?`, id)
	})
}
