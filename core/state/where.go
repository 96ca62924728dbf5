package state

import (
	"fmt"
	"strings"
	"time"
)

// where collects conditions that all must hold.
type where struct {
	conditions []string
	args       []any
}

func (w *where) add(condition string, args ...any) {
	w.conditions = append(w.conditions, condition)
	w.args = append(w.args, args...)
}

// equal adds a condition unless the value is empty. It says twice that the
// column is not, for the planner: indexes leave empty ones out.
func (w *where) equal(column, value string) {
	if value != "" {
		w.add(column+" = ? AND "+column+" <> ''", value)
	}
}

func in[T ~string](w *where, column string, values []T) {
	if len(values) == 0 {
		return
	}
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = string(v)
	}
	w.add(column+" IN (?"+strings.Repeat(",?", len(args)-1)+")", args...)
}

func (w *where) sql() string {
	if len(w.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conditions, " AND ")
}

// newest gives a query for the newest limit rows, oldest of them first. The
// query's first column must be seq.
func newest(query, columns string, w *where, limit int) string {
	if limit <= 0 {
		return fmt.Sprintf("SELECT %s FROM (%s%s) ORDER BY seq", columns, query, w.sql())
	}
	return fmt.Sprintf("SELECT %s FROM (%s%s ORDER BY seq DESC LIMIT %d) ORDER BY seq", columns, query, w.sql(), limit)
}

func now() int64 { return millis(time.Now()) }
