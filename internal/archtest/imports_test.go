package archtest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/agentlab/agentlab/"

// A layer says which packages of this module those below a folder may import.
// What it does not list is forbidden.
type layer struct {
	folder string   // "*" is one name; a package is in the first layer that fits
	may    []string // besides what is below the same folder
	tests  []string // what their tests may import besides
	reason string
}

var layers = []layer{
	{"sdk", nil, nil, "the sdk is what vendors import"},
	{"core", []string{"sdk"}, nil, "the core knows plugins only by their contract"},
	{
		"plugins/sim",
		[]string{"sdk"},
		[]string{"core/guestapi", "core/seed"},
		"a plugin must build without the core, as a vendor's does; tests compare the simulated guest with the real one's wire",
	},
	{"plugins/*", []string{"sdk"}, nil, "a plugin must build without the core and other plugins, as a vendor's does"},
	{"examples/*", []string{"sdk"}, nil, "an example has what a vendor has"},
	{"cmd/*", []string{"core", "sdk"}, []string{"plugins/sim/world"}, "commands reach plugins through the daemon"},
	{"images", nil, nil, "the scripts of the guest image are tested from outside"},
	{"internal/archtest", nil, nil, "rules depend on nothing that they judge"},
	{"internal/testkit", []string{"core/api", "core/client", "sdk", "plugins/sim/world"}, nil, "the test kit drives the real programs from outside"},
	{"bench", nil, []string{"core", "sdk/channel", "sdk/secret", "internal/testkit"}, "benchmarks drive the real programs from outside"},
	{"internal/e2e", []string{"core", "sdk", "plugins/sim/world", "internal/testkit"}, nil, "end-to-end tests drive the real programs from outside"},
}

// testkit may be imported by every test and by nothing else but a layer that
// lists it.
const testkit = "internal/testkit"

// A rule forbids packages below from to import packages below to, unless the
// importing package is below one of the exceptions. A deep one holds for what
// is imported by way of others, too.
type rule struct {
	from, to string
	except   []string
	deep     bool
	reason   string
}

var rules = []rule{
	{"cmd/agentlab", module + "core/state", nil, true, "the CLI talks only through core/client"},
	{"cmd/agentlab", module + "core/scheduler", nil, true, "the CLI talks only through core/client"},
	{"cmd/agent-runner", module + "core/state", nil, true, "the guest's program stays small and without cgo"},
	{"cmd/agent-runner", module + "core/scheduler", nil, true, "the guest's program stays small and without cgo"},
	{"", "database/sql", []string{"core/state"}, false, "SQL lives in core/state only"},
	{"", "github.com/mattn/go-sqlite3", []string{"core/state"}, false, "SQL lives in core/state only"},
	{"", "github.com/hashicorp/go-plugin", []string{"sdk"}, false, "go-plugin lives in the sdk only"},
	{"core", "google.golang.org/grpc", nil, false, "the wire lives in the sdk only"},
	{"sdk", "github.com/hashicorp/hcl/v2", nil, true, "vendors need no HCL"},
	{"sdk", "filippo.io/age", nil, true, "vendors need no age"},
	{"", "github.com/stretchr/testify", nil, false, "no assertion framework"},
}

// stdlibOnly may import the standard library and each other.
var stdlibOnly = []string{"core/lab", "core/api", "core/guestapi", "sdk/fault", "sdk/secret"}

type pkg struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string // imported, by way of others too
	GoFiles      []string
	CgoFiles     []string
	TestGoFiles  []string
	XTestGoFiles []string
}

func (p pkg) rel() string { return strings.TrimPrefix(p.ImportPath, module) }

func packages(t *testing.T) []pkg {
	t.Helper()
	all, err := listed()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found only %d packages; the rules would hold for nothing", len(all))
	}
	return all
}

var listed = sync.OnceValues(func() (all []pkg, err error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,Deps,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

func below(path, dir string) bool {
	return strings.HasPrefix(path+"/", strings.TrimSuffix(dir, "/")+"/") || dir == ""
}

func belowAny(path string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return below(path, d) })
}

// layerOf finds the first layer that fits, and the folder that it is there.
func layerOf(path string) (l layer, folder string, ok bool) {
	for _, l := range layers {
		want, have := strings.Split(l.folder, "/"), strings.Split(path, "/")
		if len(have) < len(want) {
			continue
		}
		have = have[:len(want)]
		if slices.EqualFunc(want, have, func(w, h string) bool { return w == "*" || w == h }) {
			return l, strings.Join(have, "/"), true
		}
	}
	return layer{}, "", false
}

// checkLayers gives what the packages import against the layers, and layers and
// entries of theirs that stand for nothing.
func checkLayers(all []pkg) (found []string) {
	report := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	used := map[string]bool{}
	for _, p := range all {
		l, folder, ok := layerOf(p.rel())
		if !ok {
			report("%s is in no layer", p.rel())
			continue
		}
		used[l.folder] = true
		check := func(imports []string, may ...string) {
			for _, imp := range imports {
				own, ours := strings.CutPrefix(imp, module)
				if ours && !belowAny(own, may) {
					report("%s imports %s: %s", p.rel(), own, l.reason)
				}
			}
		}
		may := append([]string{folder}, l.may...)
		check(p.Imports, may...)
		check(slices.Concat(p.TestImports, p.XTestImports), append(append(may, testkit), l.tests...)...)
	}
	for _, l := range layers {
		if !used[l.folder] {
			report("layer %s has no package", l.folder)
		}
		for _, m := range slices.Concat(l.may, l.tests) {
			if !exists(all, m) {
				report("layer %s may import %s, where no package is", l.folder, m)
			}
		}
	}
	return found
}

// checkRules gives what the packages import against the rules, and rules that
// hold for nothing.
func checkRules(all []pkg) (found []string) {
	report := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for _, r := range rules {
		excepted := map[string]bool{}
		for _, p := range all {
			if !below(p.rel(), r.from) {
				continue
			}
			imports := p.Imports
			if r.deep {
				imports = p.Deps
			}
			for _, imp := range imports {
				if !below(imp, r.to) {
					continue
				}
				if i := slices.IndexFunc(r.except, func(e string) bool { return below(p.rel(), e) }); i >= 0 {
					excepted[r.except[i]] = true
					continue
				}
				report("%s imports %s: %s", p.rel(), imp, r.reason)
			}
		}
		if !exists(all, r.from) {
			report("rule for %s holds for no package", r.from)
		}
		if own, ours := strings.CutPrefix(r.to, module); ours && !exists(all, own) {
			report("rule for %s forbids %s, where no package is", r.from, own)
		}
		for _, e := range r.except {
			if !excepted[e] {
				report("%s is excepted from importing %s and does not", e, r.to)
			}
		}
	}
	return found
}

func checkStandardLibrary(all []pkg) (found []string) {
	for _, p := range all {
		if !belowAny(p.rel(), stdlibOnly) {
			continue
		}
		for _, imp := range p.Imports {
			own, ours := strings.CutPrefix(imp, module)
			if strings.Contains(imp, ".") && !(ours && belowAny(own, stdlibOnly)) {
				found = append(found, fmt.Sprintf("%s imports %s: only the standard library is allowed here", p.rel(), imp))
			}
		}
	}
	for _, dir := range stdlibOnly {
		if !exists(all, dir) {
			found = append(found, dir+" may import the standard library only, and is no package")
		}
	}
	return found
}

// exists reports whether a package is below dir.
func exists(all []pkg, dir string) bool {
	return slices.ContainsFunc(all, func(p pkg) bool { return below(p.rel(), dir) })
}

func TestImports(t *testing.T) {
	all := packages(t)
	for _, text := range slices.Concat(checkLayers(all), checkRules(all), checkStandardLibrary(all)) {
		t.Error(text)
	}
}

// TestRulesBite shows that the tables find what they are for: each change of
// the real packages is told, and nothing else.
func TestRulesBite(t *testing.T) {
	all := packages(t)
	imports := func(path, imp string) func([]pkg) []pkg {
		return func(all []pkg) []pkg {
			return change(all, path, func(p *pkg) { p.Imports = append(slices.Clone(p.Imports), imp) })
		}
	}
	tests := func(path, imp string) func([]pkg) []pkg {
		return func(all []pkg) []pkg {
			return change(all, path, func(p *pkg) { p.XTestImports = append(slices.Clone(p.XTestImports), imp) })
		}
	}
	without := func(dir string) func([]pkg) []pkg {
		return func(all []pkg) []pkg {
			return slices.DeleteFunc(slices.Clone(all), func(p pkg) bool { return below(p.rel(), dir) })
		}
	}
	for _, tt := range []struct {
		spoil func([]pkg) []pkg
		want  string // part of what is told; "" is nothing
	}{
		{func(all []pkg) []pkg { return all }, ""},
		{imports("core/config", module+"internal/testkit"), "core/config imports internal/testkit"},
		{tests("core/config", module+"internal/testkit"), ""},
		{imports("core/config", module+"plugins/sim/world"), "core/config imports plugins/sim/world"},
		{imports("plugins/netfilter/internal/driver", module+"plugins/sim/world"), "imports plugins/sim/world"},
		{imports("plugins/netfilter/internal/driver", module+"plugins/netfilter/internal/nft"), ""},
		{imports("plugins/sim/internal/guest", module+"core/guestapi"), "imports core/guestapi"},
		{imports("sdk/plugin", module+"core/lab"), "sdk/plugin imports core/lab"},
		{imports("cmd/agentlab", module+"cmd/agentlabd"), "cmd/agentlab imports cmd/agentlabd"},
		{imports("cmd/agentlabd", module+"plugins/qemu"), "cmd/agentlabd imports plugins/qemu"},
		{imports("core/control", "database/sql"), "core/control imports database/sql"},
		{imports("core/lab", "golang.org/x/sys/unix"), "core/lab imports golang.org/x/sys/unix"},
		{func(all []pkg) []pkg {
			return change(all, "cmd/agentlab", func(p *pkg) { p.Deps = append(slices.Clone(p.Deps), module+"core/state") })
		}, "cmd/agentlab imports " + module + "core/state"},
		{func(all []pkg) []pkg { return append(slices.Clone(all), pkg{ImportPath: module + "extra/x"}) }, "extra/x is in no layer"},
		{without("internal/e2e"), "layer internal/e2e has no package"},
		{without("core/seed"), "where no package is"},
		{without("core/state"), "core/state is excepted"},
		{without("cmd/agent-runner"), "holds for no package"},
		{without("sdk/fault"), "sdk/fault may import"},
	} {
		spoilt := tt.spoil(all)
		found := slices.Concat(checkLayers(spoilt), checkRules(spoilt), checkStandardLibrary(spoilt))
		if told := slices.ContainsFunc(found, func(text string) bool { return strings.Contains(text, tt.want) }); told != (len(found) > 0) || (tt.want != "") != told {
			t.Errorf("want %q, told: %q", tt.want, found)
		}
	}
	if below("core/stateful", "core/state") {
		t.Error("a longer name counts as below")
	}
}

// change gives all with one package changed.
func change(all []pkg, path string, f func(*pkg)) []pkg {
	all = slices.Clone(all)
	for i := range all {
		if all[i].rel() == path {
			f(&all[i])
		}
	}
	return all
}
