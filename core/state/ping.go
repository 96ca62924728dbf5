package state

import "context"

// Ping answers once the database lets its writer begin. It writes nothing.
func (s *Store) Ping(ctx context.Context) error {
	return s.write(ctx, "begin to write", func(context.Context, *tx) error { return nil })
}
