package control_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

// rowFirst is a store that looks for the upload's file when its row is written.
type rowFirst struct {
	*state.Store
	dir   string
	found bool
	fail  error
}

func (s *rowFirst) PutRepo(ctx context.Context, r state.Repo) error {
	_, err := os.Stat(filepath.Join(s.dir, r.ID))
	s.found = err == nil
	if s.fail != nil {
		return s.fail
	}
	return s.Store.PutRepo(ctx, r)
}

// TestUploadHasARowBeforeAFile: a crash in between must leave what is collected.
func TestUploadHasARowBeforeAFile(t *testing.T) {
	d := newDaemon(t)
	store := &rowFirst{Store: d.store, dir: d.repos}
	d.config.Store = store
	d.must(d.stop())
	d.restart()
	_, err := d.c.UploadRepo(t.Context(), bytes.NewReader(archive(t, "meta.json", 10)))
	d.must(err)
	if store.found {
		t.Error("the file had its name before there was a row")
	}
	store.fail = fault.New(fault.Exhausted, "no space for the database")
	_, err = d.c.UploadRepo(t.Context(), bytes.NewReader(archive(t, "meta.json", 10)))
	wantClass(t, "upload without a row", err, fault.Exhausted)
	if entries, err := os.ReadDir(d.repos); err != nil || len(entries) != 1 {
		t.Errorf("%d files are left of one upload, %v", len(entries), err)
	}
}
