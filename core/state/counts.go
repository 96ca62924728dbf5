package state

import "context"

// Counts are what status shows, read from counters that triggers keep.
type Counts struct {
	Sandboxes     map[string]int // by state
	Jobs          map[string]int // by state
	ArtifactBytes int64
}

type counter struct {
	name, key string
	value     int64
}

// Counts costs the same however many rows and events there are.
func (s *Store) Counts(ctx context.Context) (Counts, error) {
	c := Counts{Sandboxes: map[string]int{}, Jobs: map[string]int{}}
	rows, err := many(ctx, s.reader, func(row scanner) (n counter, err error) {
		return n, row.Scan(&n.name, &n.key, &n.value)
	}, "counters", `SELECT name, key, value FROM counters WHERE name IN ('sandboxes', 'jobs', 'artifacts') AND value <> 0`)
	for _, n := range rows {
		switch n.name {
		case "sandboxes":
			c.Sandboxes[n.key] = int(n.value)
		case "jobs":
			c.Jobs[n.key] = int(n.value)
		case "artifacts":
			c.ArtifactBytes = n.value
		}
	}
	return c, err
}
