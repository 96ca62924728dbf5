package scaffold_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/sdk/conformance"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/scaffold"
)

// A vendor's module outside this tree builds with no more than it needs, and
// passes level 1 as it is.
func TestProjects(t *testing.T) {
	if testing.Short() {
		t.Skip("builds four programs")
	}
	t.Parallel()
	for _, kind := range plugin.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			files, err := scaffold.Project{Kind: kind, Name: "acme", Replace: "../.."}.Write(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{".gitignore", "Makefile", "README.md", "conformance_test.go", "driver.go", "go.mod", "main.go"} {
				if !slices.Contains(files, want) {
					t.Errorf("no %s among %q", want, files)
				}
			}
			tidy(t, dir)
			run(t, dir, "go", "vet", "./...")
			run(t, dir, "make", "--no-print-directory", "build", "VERSION=1.2.3")
			checkModule(t, dir)
			report, err := conformance.Plan{
				Binary: conformance.Binary{Path: filepath.Join(dir, "bin", "agentlab-plugin-acme")}, Level: conformance.LevelProtocol,
			}.Run(t.Context(), nil)
			if err != nil || report.Failed > 0 || report.Passed < 20 || report.Plugin != "acme" || report.Version != "1.2.3" {
				t.Errorf("%v, %+v", err, report)
			}
			if kind == plugin.Hypervisor { // the same for every kind
				if out := run(t, dir, "go", "test", "-v", "./..."); !strings.Contains(out, "--- PASS: TestConformance/protocol.handshake") {
					t.Errorf("its own test:\n%s", out)
				}
			}
		})
	}
}

func tidy(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "tidy")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	for _, sign := range []string{"dial tcp", "lookup disabled", "no such host"} {
		if err != nil && strings.Contains(string(out), sign) {
			t.Skipf("needs the Go module proxy: %s", out)
		}
	}
	if err != nil {
		t.Fatalf("go mod tidy: %v: %s", err, out)
	}
}

func run(t *testing.T, dir string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// requirements is how many modules a plugin's go.mod may name after go mod tidy.
const requirements = 16

// foreign are parts of AgentLab and of its dependencies that no plugin needs.
var foreign = []string{
	"github.com/agentlab/agentlab/core/", "github.com/agentlab/agentlab/cmd/", "github.com/agentlab/agentlab/plugins/",
	"github.com/mattn/go-sqlite3", "github.com/hashicorp/hcl", "filippo.io/age", "github.com/danielgtaylor/huma",
	"github.com/mitchellh/cli", "github.com/zclconf/go-cty", "database/sql",
}

func checkModule(t *testing.T, dir string) {
	t.Helper()
	var mod struct{ Require []struct{ Path string } }
	if err := json.Unmarshal([]byte(run(t, dir, "go", "mod", "edit", "-json")), &mod); err != nil {
		t.Fatal(err)
	}
	if n := len(mod.Require); n == 0 || n > requirements {
		t.Errorf("go.mod requires %d modules, want %d at most: %+v", n, requirements, mod.Require)
	}
	paths := strings.Fields(run(t, dir, "go", "list", "-deps", "-test", "./..."))
	for _, r := range mod.Require {
		paths = append(paths, r.Path+"/")
	}
	if !slices.Contains(paths, "github.com/agentlab/agentlab/sdk/plugin") {
		t.Errorf("the sdk is not among %d packages", len(paths))
	}
	for _, path := range paths {
		if i := slices.IndexFunc(foreign, func(f string) bool { return strings.HasPrefix(path, f) }); i >= 0 {
			t.Errorf("a plugin pulls in %s", path)
		}
	}
}

func TestRefusals(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := scaffold.Project{Kind: plugin.Secrets, Name: "acme", Replace: "../.."}
	tests := map[string]struct {
		spoil func(*scaffold.Project)
		dir   string
		class fault.Class
	}{
		"unknown kind":   {func(p *scaffold.Project) { p.Kind = "storage" }, "", fault.Invalid},
		"name":           {func(p *scaffold.Project) { p.Name = "../acme" }, "", fault.Invalid},
		"module":         {func(p *scaffold.Project) { p.Module = "a b" }, "", fault.Invalid},
		"no release":     {func(p *scaffold.Project) { p.Replace, p.SDK = "", "0.1.0-dev" }, "", fault.Precondition},
		"no checkout":    {func(p *scaffold.Project) { p.Replace = full }, "", fault.Invalid},
		"full directory": {func(*scaffold.Project) {}, full, fault.Exists},
	}
	for name, tt := range tests {
		p, dir := good, tt.dir
		if tt.spoil(&p); dir == "" {
			dir = filepath.Join(t.TempDir(), "new")
		}
		if _, err := p.Write(dir); !errors.Is(err, tt.class) || fault.HintOf(err) == "" && name != "module" {
			t.Errorf("%s: %v (hint %q), want class %s", name, err, fault.HintOf(err), tt.class)
		}
	}
}

// A release needs no checkout.
func TestReleaseIsRequired(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if _, err := (scaffold.Project{Kind: plugin.Secrets, Name: "acme", Module: "acme.example/x", SDK: "1.4.0"}).Write(dir); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	own, ownErr := os.ReadFile("../../go.mod")
	if err = errors.Join(err, ownErr); err != nil {
		t.Fatal(err)
	}
	goLine := string(own)[strings.Index(string(own), "\ngo ")+1:]
	goLine = goLine[:strings.Index(goLine, "\n")]
	want := "module acme.example/x\n\n" + goLine + "\n\nrequire github.com/agentlab/agentlab v1.4.0\n"
	if string(mod) != want {
		t.Errorf("go.mod is\n%s\nwant\n%s", mod, want)
	}
}
