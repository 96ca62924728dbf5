package archtest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// servers may serve HTTP: each new listener is a new way in.
var servers = []string{"core/control", "core/guest"}

// serving is what of net/http makes a server.
var serving = []string{"Server", "ListenAndServe", "ListenAndServeTLS", "Serve", "ServeTLS"}

func TestServers(t *testing.T) {
	var found []string
	for _, p := range packages(t) {
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles) {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if serves(f) && !slices.Contains(found, p.rel()) {
				found = append(found, p.rel())
			}
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, servers) {
		t.Errorf("%q serve HTTP, want %q", found, servers)
	}
}

func serves(f *ast.File) bool {
	name := ""
	for _, i := range f.Imports {
		if path, err := strconv.Unquote(i.Path.Value); err != nil || path != "net/http" {
			continue
		}
		if name = "http"; i.Name != nil {
			name = i.Name.Name
		}
	}
	found := false
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			x, ok := s.X.(*ast.Ident)
			found = found || ok && name != "" && x.Name == name && slices.Contains(serving, s.Sel.Name)
		}
		return !found
	})
	return found
}

func TestServesBites(t *testing.T) {
	for text, want := range map[string]bool{
		`import "net/http"; var s = http.Server{}`:                     true,
		`import web "net/http"; var e = web.ListenAndServe(":1", nil)`: true,
		`import "net/http"; var c = http.Client{}`:                     false,
		`import "example.com/http"; var s = http.Server{}`:             false,
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x; "+text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if got := serves(f); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
