package check

import (
	"cmp"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/hashicorp/hcl/v2"

	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
)

// Report is what Run found.
type Report struct {
	Config      *config.Config // what could be read; nil when that is nothing
	Profiles    []string       // usable ones, sorted
	Diagnostics config.Diagnostics
	Asked       []config.PluginBlock // those that AskPlugins started
}

// Run checks the file and what it names.
func Run(path string) Report {
	cfg, diags := config.Inspect(path)
	r := Report{Config: cfg, Diagnostics: diags}
	if cfg == nil { // so nobody knows profiles_dir: they are mostly beside the file
		dir := filepath.Join(filepath.Dir(path), "profiles")
		if _, err := os.Stat(dir); err == nil {
			_, d := r.profiles(dir)
			r.Diagnostics = append(r.Diagnostics, d...)
		}
		return r
	}
	profiles, d := r.profiles(cfg.ProfilesDir)
	c := &checker{cfg: cfg, diags: append(r.Diagnostics, d...)}
	c.owners()
	c.keys()
	c.directories()
	c.plugins()
	c.bundles(profiles)
	if cfg.SSHPublicKeyPath == "" {
		c.warn(cfg.At("ssh_public_key_path"), "", "ssh_public_key_path is not set; agentlab ssh finds no entry to sandboxes")
	}
	c.leftovers(len(profiles))
	r.Diagnostics = c.sorted()
	return r
}

func (r *Report) profiles(dir string) (map[string]config.Profile, config.Diagnostics) {
	profiles, diags := config.LoadProfiles(dir)
	r.Profiles = slices.Sorted(maps.Keys(profiles))
	return profiles, diags
}

// Reload checks what a daemon that reads its configuration anew depends on. The
// plugins run already.
func Reload(cfg *config.Config) config.Diagnostics {
	c := &checker{cfg: cfg}
	c.owners()
	c.keys()
	return c.sorted()
}

// Standing checks what the next start of a daemon that runs depends on, and who may
// read its keys: its own, and those beside them.
func Standing(cfg *config.Config) config.Diagnostics {
	c := &checker{cfg: cfg}
	c.owners()
	c.keys()
	c.plugins()
	return c.sorted()
}

type checker struct {
	cfg   *config.Config
	diags config.Diagnostics
}

func (c *checker) fail(at hcl.Range, how, format string, args ...any) {
	c.diags = c.diags.Fail(at, how, format, args...)
}

func (c *checker) warn(at hcl.Range, how, format string, args ...any) {
	c.diags = c.diags.Warn(at, how, format, args...)
}

// sorted orders by place and gives each diagnostic once.
func (c *checker) sorted() config.Diagnostics {
	slices.SortStableFunc(c.diags, func(a, b *hcl.Diagnostic) int {
		x, y := a.Subject, b.Subject
		if x == nil || y == nil {
			return 0
		}
		return cmp.Or(cmp.Compare(c.rank(x.Filename), c.rank(y.Filename)),
			strings.Compare(x.Filename, y.Filename), cmp.Compare(x.Start.Line, y.Start.Line))
	})
	return slices.CompactFunc(c.diags, func(a, b *hcl.Diagnostic) bool {
		return a.Subject != nil && b.Subject != nil && *a.Subject == *b.Subject && a.Summary == b.Summary
	})
}

// rank puts the configuration first and files that it names behind.
func (c *checker) rank(file string) int {
	if file == c.cfg.File {
		return 0
	}
	return 1
}

// owners warns where somebody else could replace a file under the daemon.
func (c *checker) owners() {
	c.openDir(filepath.Dir(c.cfg.File))
	c.openDir(c.cfg.ProfilesDir)
}

// openDir warns about a directory in which others may replace files.
func (c *checker) openDir(dir string) {
	st, err := os.Stat(dir)
	if err != nil || !st.IsDir() {
		return
	}
	if uid, foreign := config.ForeignOwner(st); foreign {
		c.warn(config.WholeFile(dir), "run chown root "+dir, "belongs to uid %d, who may replace what is in it", uid)
	}
	if st.Mode().Perm()&0o022 != 0 && st.Mode()&os.ModeSticky == 0 {
		c.warn(config.WholeFile(dir), "run chmod go-w "+dir, "mode %04o lets others replace what is in it", st.Mode().Perm())
	}
}

// directories checks those that the daemon uses; it makes missing ones itself.
func (c *checker) directories() {
	for _, d := range []struct{ key, path string }{
		{"data_dir", c.cfg.DataDir},
		{"run_dir", c.cfg.RunDir},
		{"plugin_dir", c.cfg.PluginDir},
		{"log_file", filepath.Dir(c.cfg.LogFile)},
	} {
		if at := notDir(d.path); at != "" {
			c.fail(c.cfg.At(d.key), "", "%s: %s is not a directory", d.key, at)
		}
	}
	if st, err := os.Stat(c.cfg.LogFile); err == nil && st.IsDir() {
		c.fail(c.cfg.At("log_file"), "", "log_file: %s is a directory", c.cfg.LogFile)
	}
}

// notDir gives the part of the path that is there and no directory.
func notDir(path string) string {
	if !filepath.IsAbs(path) {
		return "" // said elsewhere, or not set
	}
	for ; ; path = filepath.Dir(path) {
		st, err := os.Stat(path)
		switch {
		case err == nil && !st.IsDir():
			return path
		case err == nil || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) || path == filepath.Dir(path):
			return ""
		}
	}
}

// plugins verifies the binaries the way the daemon does before it starts them.
func (c *checker) plugins() {
	kinds := map[string]bool{}
	for _, p := range c.cfg.Plugins {
		kinds[p.Kind] = true
		path := c.cfg.Binary(p)
		if p.Path == "" && !filepath.IsAbs(path) {
			continue // plugin_dir is wrong
		}
		if err := launch.Verify(path, p.SHA256); err != nil {
			c.fail(p.Range, fault.HintOf(err), "%v", err)
		}
	}
	for _, kind := range []string{"hypervisor", "network"} {
		if !kinds[kind] {
			c.warn(config.WholeFile(c.cfg.File), `add plugin "`+kind+`" "NAME" {}`, "there is no %s plugin; no sandbox can be made", kind)
		}
	}
}

// bundles warns about bundles that nobody could open.
func (c *checker) bundles(profiles map[string]config.Profile) {
	if slices.ContainsFunc(c.cfg.Plugins, func(p config.PluginBlock) bool { return p.Kind == "secrets" }) {
		return
	}
	const how = `add plugin "secrets" "secrets-age" {}, or remove the key`
	if c.cfg.SecretsBundle != "" {
		c.warn(c.cfg.At("secrets_bundle"), how, "secrets_bundle: there is no secrets plugin that could open %q", c.cfg.SecretsBundle)
	}
	for _, p := range profiles {
		if b := p.Spec(c.cfg, "").Bundle; b != "" && b != c.cfg.SecretsBundle {
			c.warn(p.Range, how, "profile %q: there is no secrets plugin that could open %q", p.Name, b)
		}
	}
}

// leftovers warns when there is no profile, and about profiles in the YAML form,
// which nobody reads.
func (c *checker) leftovers(usable int) {
	dir := c.cfg.ProfilesDir
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // config.LoadProfiles tells
	}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		path := filepath.Join(dir, e.Name())
		if ext != ".yaml" && ext != ".yml" {
			continue
		}
		if _, err := os.Stat(strings.TrimSuffix(path, ext) + ".hcl"); errors.Is(err, os.ErrNotExist) {
			c.warn(config.WholeFile(path), "run agentlab config convert -w "+path, "is not read; profiles are *.hcl")
		}
	}
	if usable == 0 {
		c.warn(config.WholeFile(dir), "", "there is no usable profile; jobs need one")
	}
}
