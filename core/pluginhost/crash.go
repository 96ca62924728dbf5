package pluginhost

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	crashesKept = 5        // reports per plugin, the newest
	outputKept  = 16 << 10 // bytes of output in a report
	crashesDir  = "crashes"
	crashPrefix = "crash"
)

// Crash is the report about a process that did not end as it should.
type Crash struct {
	ID      string        `json:"id"`
	Plugin  string        `json:"plugin"` // "hypervisor qemu"
	Version string        `json:"version,omitempty"`
	PID     int           `json:"pid,omitempty"`
	At      time.Time     `json:"at"`
	Ran     time.Duration `json:"ran"`    // until then
	Reason  string        `json:"reason"` // "killed by SIGKILL"
	Code    int           `json:"code"`   // -1 after a signal
	Signal  string        `json:"signal,omitempty"`
	Memory  int64         `json:"memory,omitempty"` // the most bytes that it ever held
	Output  string        `json:"output,omitempty"` // its last, without values of sensitive keys
	Calls   []CallRecord  `json:"calls,omitempty"`  // its newest, oldest first
}

// records keeps the newest reports of one plugin, also over restarts of the
// daemon.
type records struct {
	dir  string
	list []Crash // newest first
}

// load reads what earlier daemons left. A report that cannot be read is left
// alone and out.
func (r *records) load() error {
	names, err := filepath.Glob(filepath.Join(r.dir, crashPrefix+"_*.json"))
	if err != nil {
		return err
	}
	var bad error
	for _, name := range names {
		raw, err := os.ReadFile(name)
		var c Crash
		if err = errors.Join(err, json.Unmarshal(raw, &c)); err != nil || !lab.IsID(crashPrefix, c.ID) {
			bad = errors.Join(bad, fault.New(fault.Internal, "read crash report %s: %w", name, err))
			continue
		}
		r.list = append(r.list, c)
	}
	slices.SortFunc(r.list, func(a, b Crash) int { return b.At.Compare(a.At) })
	return errors.Join(bad, r.trim())
}

// add keeps a report. The report counts even if its file cannot be written.
func (r *records) add(c Crash) error {
	r.list = append([]Crash{c}, r.list...) // others may read the old one
	return errors.Join(r.write(c), r.trim())
}

func (r *records) write(c Crash) error {
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fault.New(fault.Internal, "write crash report: %w", err)
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return fault.New(fault.Unavailable, "make folder for crash reports: %w", err)
	}
	path := r.path(c)
	if err := errors.Join(os.WriteFile(path+".new", raw, 0o600), os.Rename(path+".new", path)); err != nil {
		return fault.New(fault.Unavailable, "write crash report: %w", err)
	}
	return nil
}

func (r *records) trim() (err error) {
	for _, old := range r.list[min(len(r.list), crashesKept):] {
		if rm := os.Remove(r.path(old)); rm != nil && !errors.Is(rm, os.ErrNotExist) {
			err = errors.Join(err, fault.New(fault.Unavailable, "remove old crash report: %w", rm))
		}
	}
	r.list = r.list[:min(len(r.list), crashesKept)]
	return err
}

func (r *records) path(c Crash) string { return filepath.Join(r.dir, c.ID+".json") }

// tailOf is the end of an output from the begin of a line on.
func tailOf(s string) string {
	if len(s) <= outputKept {
		return s
	}
	s = s[len(s)-outputKept:]
	if _, rest, ok := strings.Cut(s, "\n"); ok {
		return rest
	}
	for len(s) > 0 && !utf8.RuneStart(s[0]) {
		s = s[1:]
	}
	return s
}
