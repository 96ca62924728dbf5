package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"

	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/lab"
)

// told keeps events.
type told []lab.Event

func (t *told) AppendEvent(_ context.Context, e lab.Event) error {
	*t = append(*t, e)
	return nil
}

// TestHalfReloadNamesWhatItReplaced: the old configuration stays, but not all of
// the old processes do.
func TestHalfReloadNamesWhatItReplaced(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.hcl")
	if err := os.WriteFile(file, []byte("data_dir = \""+dir+"\"\nprofiles_dir = \""+dir+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, diags := config.Load(file)
	if diags.HasErrors() {
		t.Fatal(diags.Err())
	}
	var events told
	r := newReloader(cfg, nil, hclog.NewNullLogger())
	r.store = &events
	r.plugins = func(context.Context, *config.Config) ([]string, hcl.Diagnostics) {
		return []string{"secrets alone", "network other"}, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "no luck"}}
	}
	r.reload(t.Context())
	const want = "plugins replaced nevertheless: secrets alone, network other"
	if len(events) != 1 || events[0].Type != lab.EventConfigRejected || !strings.Contains(events[0].Message, "no luck; "+want) ||
		events[0].Fields["plugins"] != "secrets alone, network other" || strings.Contains(events[0].Fields["error"], "nevertheless") {
		t.Errorf("events %+v", events)
	}
	if p := r.problems(); !slices.ContainsFunc(p, func(s string) bool { return strings.Contains(s, want) }) {
		t.Errorf("problems %q", p)
	}
}
