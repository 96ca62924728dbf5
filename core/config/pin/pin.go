package pin

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
)

// Pin is that of one plugin block.
type Pin struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Line   int    `json:"line" doc:"of the block"`
	Path   string `json:"path" doc:"of the binary"`
	Pinned string `json:"pinned,omitempty" doc:"what the file says; nothing: any content is started"`
	SHA256 string `json:"sha256" doc:"of the binary that is there"`
}

// Fits reports whether the binary is the one that is pinned.
func (p Pin) Fits() bool { return strings.EqualFold(p.Pinned, p.SHA256) }

// Lock is a configuration file with the pins that its blocks should have.
type Lock struct {
	File string
	Pins []Pin

	before, after []byte
}

// Look reads the file and the binaries of the plugins that are named by their
// kind or name, of all when none is. A binary that somebody else could change is
// not pinned; the error says so.
func Look(file string, names []string) (*Lock, error) {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "there is no configuration %s", file).
			WithHint("name the daemon's with --file; that of a dev daemon is config.hcl in its --dev-dir")
	}
	cfg, diags := config.Load(file)
	if err := diags.Err(); err != nil {
		return nil, err
	}
	before, err := os.ReadFile(file)
	if err != nil {
		return nil, fault.New(fault.Denied, "read %s: %w", file, err)
	}
	blocks, err := choose(cfg.Plugins, names)
	if err != nil {
		return nil, err
	}
	l := &Lock{File: file, Pins: []Pin{}, before: before}
	for _, b := range blocks {
		p := Pin{Kind: b.Kind, Name: b.Name, Line: b.Range.Start.Line, Path: cfg.Binary(b), Pinned: b.SHA256}
		if p.SHA256, err = launch.Sum(p.Path, ""); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, p.Line, err)
		}
		l.Pins = append(l.Pins, p)
	}
	if l.after, err = write(before, l.Pins); err != nil {
		return nil, fmt.Errorf("pin plugins in %s: %w", file, err)
	}
	return l, nil
}

func choose(blocks []config.PluginBlock, names []string) ([]config.PluginBlock, error) {
	if len(names) == 0 {
		return blocks, nil
	}
	var out []config.PluginBlock
	for _, name := range names {
		found := false
		for _, b := range blocks {
			if b.Kind != name && b.Name != name {
				continue
			}
			found = true
			if !slices.ContainsFunc(out, func(o config.PluginBlock) bool { return o.Range == b.Range }) {
				out = append(out, b)
			}
		}
		if !found {
			return nil, fault.New(fault.NotFound, "no block is for a plugin %q", name).WithHint("there are: %s", listed(blocks))
		}
	}
	return out, nil
}

func listed(blocks []config.PluginBlock) string {
	var names []string
	for _, b := range blocks {
		names = append(names, b.Kind+" "+b.Name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// Changed reports whether Write would change the file.
func (l *Lock) Changed() bool { return !bytes.Equal(l.before, l.after) }

// Diff is what Write would change: the lines of a unified diff but those around
// the changes, which may hold secrets.
func (l *Lock) Diff() string {
	var out strings.Builder
	for line := range strings.Lines(string(diff.Diff(l.File, l.before, l.File, l.after))) {
		if strings.HasPrefix(line, "+") || strings.HasPrefix(line, "-") || strings.HasPrefix(line, "@@") {
			out.WriteString(line)
		}
	}
	return out.String()
}

// Check is fault.Conflict unless every binary is the one that is pinned.
func (l *Lock) Check() error {
	var wrong []string
	for _, p := range l.Pins {
		switch {
		case p.Pinned == "":
			wrong = append(wrong, fmt.Sprintf("%s:%d: plugin %s %s is not pinned", l.File, p.Line, p.Kind, p.Name))
		case !p.Fits():
			wrong = append(wrong, fmt.Sprintf("%s:%d: %s has sha256 %s, and %s is pinned", l.File, p.Line, p.Path, p.SHA256, p.Pinned))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return fault.New(fault.Conflict, "%s", strings.Join(wrong, "\n")).
		WithHint("if these are the binaries that you want, run agentlab plugin lock%s", fileFlag(l.File))
}

// fileFlag is what a command needs to work on the file.
func fileFlag(file string) string {
	if file == config.DefaultFile {
		return ""
	}
	return " --file " + file
}

// Write puts the pins into the file, whose owner and mode stay: the old content
// or the new one is there, whatever happens. Somebody else's change since Look is
// fault.Conflict.
func (l *Lock) Write() error {
	path, err := filepath.EvalSymlinks(l.File)
	if err != nil {
		return fault.New(fault.Denied, "write %s: %w", l.File, err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, l.before) {
		return fault.New(fault.Conflict, "%s has changed meanwhile", l.File).WithHint("run it again")
	}
	if err := replace(path, l.after); err != nil {
		return fault.New(fault.Denied, "write %s: %w", l.File, err)
	}
	return nil
}
