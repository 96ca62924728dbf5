package archtest_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/agentlab/agentlab/"

// A rule forbids packages below From to import packages below To, unless the
// importing package is below one of the exceptions.
type rule struct {
	from, to string
	except   []string
	reason   string
}

var rules = []rule{
	{"core/", module + "plugins/", nil, "the core knows plugins only by their contract"},
	{"core/", module + "cmd/", nil, "commands wire the core, never the other way"},
	{"plugins/", module + "core/", nil, "a plugin must build without the core, as a vendor's does"},
	{"plugins/", module + "cmd/", nil, "a plugin must build without the core, as a vendor's does"},
	{"sdk/", module + "core/", nil, "the sdk is what vendors import"},
	{"sdk/", module + "plugins/", nil, "the sdk is what vendors import"},
	{"sdk/", module + "cmd/", nil, "the sdk is what vendors import"},
	{"cmd/", module + "plugins/", nil, "commands reach plugins through the daemon"},
	{"cmd/agentlab/", module + "core/state", nil, "the CLI talks only through core/client"},
	{"cmd/agentlab/", module + "core/scheduler", nil, "the CLI talks only through core/client"},
	{"cmd/agent-runner/", module + "core/state", nil, "the guest's program stays small and without cgo"},
	{"cmd/agent-runner/", module + "core/scheduler", nil, "the guest's program stays small and without cgo"},
	{"", "database/sql", []string{"core/state"}, "SQL lives in core/state only"},
	{"", "github.com/mattn/go-sqlite3", []string{"core/state"}, "SQL lives in core/state only"},
	{"", "github.com/hashicorp/go-plugin", []string{"sdk/"}, "go-plugin lives in the sdk only"},
	{"core/", "google.golang.org/grpc", nil, "the wire lives in the sdk only"},
	{"sdk/", "github.com/hashicorp/hcl/v2", nil, "vendors need no HCL"},
	{"sdk/", "filippo.io/age", nil, "vendors need no age"},
	{"", "github.com/stretchr/testify", nil, "no assertion framework"},
}

// stdlibOnly may import the standard library and each other.
var stdlibOnly = []string{"core/lab", "core/api", "core/guestapi", "sdk/fault", "sdk/secret"}

type pkg struct {
	ImportPath   string
	Dir          string
	Imports      []string
	GoFiles      []string
	CgoFiles     []string
	Standard     bool
	TestGoFiles  []string
	XTestGoFiles []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,GoFiles,CgoFiles,Standard,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("found only %d packages; the rules would hold for nothing", len(all))
	}
	return all
}

func below(path, dir string) bool {
	return strings.HasPrefix(path+"/", strings.TrimSuffix(dir, "/")+"/") || dir == ""
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		rel := strings.TrimPrefix(p.ImportPath, module)
		for _, r := range rules {
			if !below(rel, r.from) || excepted(rel, r.except) {
				continue
			}
			for _, imp := range p.Imports {
				if below(imp, r.to) {
					t.Errorf("%s imports %s: %s", rel, imp, r.reason)
				}
			}
		}
	}
}

func excepted(rel string, except []string) bool {
	for _, e := range except {
		if below(rel, e) {
			return true
		}
	}
	return false
}

func TestStandardLibraryOnly(t *testing.T) {
	seen := 0
	for _, p := range packages(t) {
		rel := strings.TrimPrefix(p.ImportPath, module)
		if !excepted(rel, stdlibOnly) {
			continue
		}
		seen++
		for _, imp := range p.Imports {
			own := strings.HasPrefix(imp, module) && excepted(strings.TrimPrefix(imp, module), stdlibOnly)
			if strings.Contains(imp, ".") && !own {
				t.Errorf("%s imports %s: only the standard library is allowed here", rel, imp)
			}
		}
	}
	if seen < len(stdlibOnly) {
		t.Errorf("checked %d packages, %d are in the table", seen, len(stdlibOnly))
	}
}

// TestRulesBite shows that the table finds what it is for.
func TestRulesBite(t *testing.T) {
	for path, dir := range map[string]string{
		module + "plugins/qemu": module + "plugins/", "database/sql": "database/sql", "core/state": "core/",
	} {
		if !below(path, dir) {
			t.Errorf("below(%q, %q) = false", path, dir)
		}
	}
	if below("core/stateful", "core/state") {
		t.Error("a longer name counts as below")
	}
}
