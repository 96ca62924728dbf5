package state

import (
	"context"
	"time"
)

// Repo is an uploaded repository.
type Repo struct {
	ID        string
	Size      int64  // bytes
	UsedBy    string // job id, "" for none yet
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

// UnusedRepos lists uploads from before the given time that no job took.
func (s *Store) UnusedRepos(ctx context.Context, before time.Time) ([]Repo, error) {
	return many(ctx, s.reader, scanRepo, "repositories", `SELECT `+repoColumns+` FROM repos WHERE used_by = '' AND created_at < ? ORDER BY created_at`, millis(before))
}

// DeleteRepo forgets an upload. Gone is success.
func (s *Store) DeleteRepo(ctx context.Context, id string) error {
	return s.write(ctx, "delete repository", func(ctx context.Context, t *tx) error {
		return t.exec(ctx, `DELETE FROM repos WHERE id = ?`, id)
	})
}
