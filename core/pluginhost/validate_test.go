package pluginhost_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/core/pluginhost"
)

func TestValidateAsksThePluginOnly(t *testing.T) {
	const good = "folder = \"/f\"\n"
	tests := []struct {
		name  string
		block pluginhost.Block
		diag  string
		err   string
	}{
		{"good", block(t, "secrets", good), "", ""},
		{"not configured", block(t, "secrets", good+"mode = \"broken\"\n"), "", ""}, // configuring it would fail
		{"schema", block(t, "secrets", good+"limt = 3\n"), `2 unknown key "limt" Did you mean "limit"?`, ""},
		{"the plugin's own", block(t, "secrets", good+"keys = [\"bad\"]\n"), "2 key is bad, said ", ""},
		{"other kind", block(t, "network", good), "99 ", ""},
		{"no binary", pluginhost.Block{Kind: "secrets", Name: "absent"}, "", "does not exist"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run, err := os.MkdirTemp("", "al")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = os.RemoveAll(run) }()
			diags, err := pluginhost.Validate(t.Context(), pluginhost.Config{PluginDir: pluginDir, RunDir: run}, tt.block, hclog.NewNullLogger())
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			var got []string
			for _, d := range diags {
				got = append(got, fmt.Sprintf("%d %s %s", d.Subject.Start.Line, d.Summary, d.Detail))
			}
			if len(got) > 1 || (len(got) == 0) != (tt.diag == "") || len(got) == 1 && !strings.HasPrefix(got[0], tt.diag) {
				t.Error(cmp.Diff(tt.diag, strings.Join(got, "\n")))
			}
			if left, _ := os.ReadDir(run); len(left) > 0 {
				t.Errorf("%d sockets left", len(left))
			}
		})
	}
}
