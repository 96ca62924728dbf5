package control

import (
	"bytes"
	"context"
	"flag"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

var update = flag.Bool("update", false, "write docs/openapi.json")

type nothing struct {
	Store
	Scheduler
}

func (nothing) Names() []string               { return nil }
func (nothing) Spec(string) (lab.Spec, error) { return lab.Spec{}, fault.New(fault.NotFound, "none") }
func (nothing) Problems() []string            { return nil }
func (nothing) ListTemplates(context.Context) ([]hypervisor.Template, error) {
	return nil, nil
}

func bare(t *testing.T) *Server {
	t.Helper()
	dir := t.TempDir()
	s, err := New(Config{
		Store: nothing{}, Scheduler: nothing{}, Profiles: nothing{}, Hypervisor: nothing{},
		Plugins: func() []api.Plugin { return nil },
		Plugin:  func(string) (api.PluginInfo, error) { return api.PluginInfo{}, nil }, ArtifactsDir: filepath.Join(dir, "a"), ReposDir: filepath.Join(dir, "r"),
		Dial: func(context.Context, netip.AddrPort) (net.Conn, error) {
			return nil, fault.New(fault.Unavailable, "none")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Every route is denied to a caller without identity, unless the table says in
// so many words that it is public. The store of this server would panic.
func TestRoutesDenyByDefault(t *testing.T) {
	s := bare(t)
	public := map[string]bool{"health": true}
	seen := map[string]bool{}
	for _, rt := range s.routes {
		if seen[rt.id] || rt.id == "" || rt.summary == "" || rt.serve == nil || rt.status == 0 {
			t.Errorf("%s %s: id %q is not unique, or a part is missing", rt.method, rt.path, rt.id)
		}
		seen[rt.id] = true
		switch rt.permission {
		case PermPublic, PermRead, PermOperate:
		default:
			t.Errorf("%s has the permission %q", rt.id, rt.permission)
		}
		if rt.method != http.MethodGet && rt.permission != PermOperate {
			t.Errorf("%s changes something with the permission %q", rt.id, rt.permission)
		}
		path := strings.NewReplacer("{ref}", "x", "{name}", "x", "{id}", "x", "{path...}", "x").Replace(rt.path)
		rec := httptest.NewRecorder()
		s.Handler().ServeHTTP(rec, httptest.NewRequest(rt.method, path, strings.NewReader("{}")))
		if denied := rec.Code == http.StatusForbidden; denied == public[rt.id] {
			t.Errorf("%s answered %d to a stranger", rt.id, rec.Code)
		}
	}
	if len(seen) < 20 {
		t.Errorf("walked only %d routes", len(seen))
	}
}

func TestRouteWithoutPermissionIsDenied(t *testing.T) {
	s := bare(t)
	rt := s.routes[0]
	rt.permission = ""
	req := httptest.NewRequest(rt.method, rt.path, nil)
	req = req.WithContext(context.WithValue(req.Context(), peerKey{}, peer{uid: 0, pid: 1}))
	rec := httptest.NewRecorder()
	s.guard(rt).ServeHTTP(rec, req)
	if rec.Code != http.StatusForbidden {
		t.Errorf("status %d", rec.Code)
	}
}

func TestOpenAPIDocumentIsCommitted(t *testing.T) {
	const file = "../../docs/openapi.json"
	got, err := bare(t).OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from the route table: go test ./core/control -run OpenAPI -update", file)
	}
}

func TestEveryClassHasAStatus(t *testing.T) {
	for _, c := range fault.Classes() {
		if s := api.StatusOf(string(c)); s < 400 || (s == 500) != (c == fault.Internal) {
			t.Errorf("%s is %d", c, s)
		}
	}
}

func TestTailOffset(t *testing.T) {
	long := strings.Repeat("x", 70<<10)
	for _, tc := range []struct {
		text string
		n    int
		want string
	}{
		{"", 3, ""},
		{"a\nb\nc\n", 2, "b\nc\n"},
		{"a\nb\nc", 2, "b\nc"},
		{"a\nb\n", 5, "a\nb\n"},
		{"a\n\n\n", 2, "\n\n"},
		{"head\n" + long + "\n" + long + "\nend\n", 2, long + "\nend\n"},
		{long, 1, long},
		{"a\n" + long, 1, long},
		{strings.Repeat("y", 64<<10-1) + "\nz\n", 1, "z\n"},
		{"q\n" + strings.Repeat("y", 64<<10-1) + "\n", 1, strings.Repeat("y", 64<<10-1) + "\n"},
	} {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(tc.text); err != nil {
			t.Fatal(err)
		}
		at, err := tailOffset(f, tc.n)
		if err != nil || tc.text[at:] != tc.want {
			t.Errorf("%.10q, %d lines: %.20q, %v", tc.text, tc.n, tc.text[at:], err)
		}
	}
}

func TestCheckRepoURL(t *testing.T) {
	for _, ok := range []string{
		"https://git.example/a.git", "http://10.1.2.3:8080/a", "ssh://git@host/a", "git://h/a", "git@github.com:a/b.git",
		"host:path/x",
	} {
		if err := checkRepoURL(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"file:///etc", "/etc", "./x", "ext::sh -c id", "ext::x", "--upload-pack=x", "https://", "https://-x/a", "ssh://-oProxyCommand=x/a",
		"https://u:p@h/a", "https://token@h/a", "ssh://u:p@h/a", "a b:c", "-x:y", "h:-x", "fd::17", "https://h/\n",
	} {
		if err := checkRepoURL(bad); fault.ClassOf(err) != fault.Invalid {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestCheckRef(t *testing.T) {
	for ref, ok := range map[string]bool{
		"": true, "main": true, "feature/x-1": true, "v1.0": true, "-x": false, "a..b": false, "a b": false, "HEAD~1": false, "x^": false, "a@{1}": false, "a:b": false,
	} {
		if err := checkRef(ref); (err == nil) != ok {
			t.Errorf("%q: %v", ref, err)
		}
	}
}
