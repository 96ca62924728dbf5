package state

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
)

const metaHostUUID = "host_uuid"

// HostUUID gives the identity of this database's host, part of every owner
// mark. It is made on the first call and never changes.
func (s *Store) HostUUID(ctx context.Context) (string, error) {
	var id string
	err := s.write(ctx, "read host uuid", func(ctx context.Context, t *tx) error {
		err := t.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = ?", metaHostUUID).Scan(&id)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		id = newUUID()
		return t.exec(ctx, "INSERT INTO meta VALUES (?, ?)", metaHostUUID, id)
	})
	return id, err
}

// newUUID gives a random UUID, version 4.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
