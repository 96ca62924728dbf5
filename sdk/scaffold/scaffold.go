package scaffold

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"go/format"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// sdkModule is what a plugin requires.
const sdkModule = "github.com/agentlab/agentlab"

// goVersion is that of the sdk's own go.mod.
const goVersion = "1.26.0"

//go:embed all:templates
var templates embed.FS

// Project is a plugin to begin.
type Project struct {
	Kind    plugin.Kind
	Name    string // of the plugin: "acme"
	Module  string // of Go; "": example.com/agentlab-plugin-<Name>
	SDK     string // version of the sdk to require: "0.1.0"
	Replace string // checkout to use in place of it; "": none
}

var (
	goodName   = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	goodModule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~-]*(/[A-Za-z0-9][A-Za-z0-9._~-]*)*$`)
	release    = regexp.MustCompile(`^\d+\.\d+\.\d+$`)
)

// Write makes the project in dir, which must be empty or not be there, and gives
// the names of its files.
func (p Project) Write(dir string) ([]string, error) {
	if p.Module == "" {
		p.Module = "example.com/" + plugin.BinaryPrefix + p.Name
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	files, err := p.render()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Invalid, "look into %s: %w", dir, err)
	}
	if len(entries) > 0 {
		return nil, fault.New(fault.Exists, "%s is not empty", dir).WithHint("name another directory, or none")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fault.New(fault.Denied, "make %s: %w", dir, err)
	}
	var names []string
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil { //nolint:gosec // source code
			return nil, fault.New(fault.Denied, "write the project: %w", err)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// check refuses what makes no project, and makes Replace a path that is whole.
func (p *Project) check() error {
	switch {
	case p.Kind.ServiceName() == "":
		return fault.New(fault.Invalid, "there is no kind %q", p.Kind).WithHint("kinds are %v", plugin.Kinds())
	case !goodName.MatchString(p.Name) || len(p.Name) > 40:
		return fault.New(fault.Invalid, "%q is no name for a plugin", p.Name).WithHint("lower case letters, digits and dashes, beginning with a letter")
	case !goodModule.MatchString(p.Module):
		return fault.New(fault.Invalid, "%q is no path of a Go module", p.Module)
	case p.Replace == "" && !release.MatchString(p.SDK):
		return fault.New(fault.Precondition, "this agentlab is %s, which is no release that Go could download", p.SDK).
			WithHint("name a checkout of AgentLab with --replace")
	case p.Replace == "":
		return nil
	}
	path, err := filepath.Abs(p.Replace)
	if err != nil {
		return fault.New(fault.Invalid, "find %s: %w", p.Replace, err)
	}
	mod, err := os.ReadFile(filepath.Join(path, "go.mod"))
	if err != nil || !bytes.HasPrefix(mod, []byte("module "+sdkModule+"\n")) {
		return fault.New(fault.Invalid, "%s is no checkout of AgentLab", path).WithHint("its go.mod begins with: module %s", sdkModule)
	}
	p.Replace = path
	return nil
}

// Values for the templates.

// Prefix begins the binary's name.
func (p Project) Prefix() string { return plugin.BinaryPrefix }

// GoVersion is what go.mod asks for.
func (p Project) GoVersion() string { return goVersion }

// SDKModule is the module of the sdk.
func (p Project) SDKModule() string { return sdkModule }

// Require is the version of the sdk in go.mod.
func (p Project) Require() string {
	if p.Replace != "" {
		return "v0.0.0"
	}
	return "v" + p.SDK
}

// GoKind is the kind as Go's sdk names it.
func (p Project) GoKind() string {
	k := string(p.Kind)
	return strings.ToUpper(k[:1]) + k[1:]
}

// render fills the templates of the kind and those of every kind.
func (p Project) render() (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, folder := range []string{"common", string(p.Kind)} {
		entries, err := templates.ReadDir(path.Join("templates", folder))
		if err != nil {
			return nil, fault.New(fault.Internal, "find the templates: %w", err)
		}
		for _, e := range entries {
			name := strings.TrimSuffix(e.Name(), ".tmpl")
			content, err := p.fill(path.Join("templates", folder, e.Name()))
			if err != nil {
				return nil, fault.New(fault.Internal, "fill the template of %s: %w", name, err)
			}
			out[strings.Replace(name, "dot-", ".", 1)] = content
		}
	}
	return out, nil
}

func (p Project) fill(name string) ([]byte, error) {
	t, err := template.ParseFS(templates, name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return nil, err
	}
	if !strings.HasSuffix(name, ".go.tmpl") {
		return b.Bytes(), nil
	}
	text, err := format.Source(b.Bytes())
	if err != nil {
		return nil, fmt.Errorf("format: %w", err)
	}
	return text, nil
}
