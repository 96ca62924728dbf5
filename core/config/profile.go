package config

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/agentlab/agentlab/core/lab"
)

// Profile is one profile with defaults applied.
type Profile struct {
	Name  string
	Range hcl.Range // where its block begins
	spec  lab.Spec
}

type profilesForm struct {
	Profiles []profileForm `hcl:"profile,block"`
}

type profileForm struct {
	Name          string         `hcl:"name,label"`
	TemplateVMID  *int64         `hcl:"template_vmid"`
	Template      *string        `hcl:"template"`
	SecretsBundle *string        `hcl:"secrets_bundle"`
	Resources     *resourcesForm `hcl:"resources,block"`
	Network       *networkForm   `hcl:"network,block"`
	Agent         *agentForm     `hcl:"agent,block"`
	Behavior      *behaviorForm  `hcl:"behavior,block"`
	Repo          *repoForm      `hcl:"repo,block"`
	Guest         *guestForm     `hcl:"guest,block"`
	Artifacts     *artifactsForm `hcl:"artifacts,block"`
	Range         hcl.Range      `hcl:",def_range"`
}

type resourcesForm struct {
	Cores    *int64 `hcl:"cores"`
	MemoryMB *int64 `hcl:"memory_mb"`
	DiskGB   *int64 `hcl:"disk_gb"`
}

type networkForm struct {
	Mode  *string   `hcl:"mode"`
	Allow *[]string `hcl:"allow"`
}

type agentForm struct {
	Command *string `hcl:"command"`
	Mode    *string `hcl:"mode"`
}

type behaviorForm struct {
	TTLMinutes      *int64    `hcl:"ttl_minutes_default"`
	IdleStopMinutes *int64    `hcl:"idle_stop_minutes_default"`
	OnJobEnd        *string   `hcl:"on_job_end"`
	InnerSandbox    *string   `hcl:"inner_sandbox"`
	InnerArgs       *[]string `hcl:"inner_sandbox_args"`
}

type repoForm struct {
	Path *string `hcl:"path"`
}

type guestForm struct {
	SSHUser *string `hcl:"ssh_user"`
}

type artifactsForm struct {
	RetentionDays *int64 `hcl:"retention_days"`
}

var profileName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// LoadProfiles reads every *.hcl file of the directory. A bad profile is left
// out and its diagnostics say why; it never hides the good ones. A missing
// directory is a warning.
func LoadProfiles(dir string) (map[string]Profile, Diagnostics) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		text := fmt.Sprintf("cannot be read: %v", err)
		if errors.Is(err, fs.ErrNotExist) {
			text = "no such directory; put a profile there to run jobs"
		}
		return map[string]Profile{}, Diagnostics{}.Warn(WholeFile(dir), "", "%s", text)
	}
	return LoadProfileFiles(profileFiles(dir, entries)...)
}

func profileFiles(dir string, entries []os.DirEntry) (files []string) {
	for _, e := range entries {
		if !e.IsDir() && filepath.Ext(e.Name()) == ".hcl" {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files
}

// LoadProfileFiles is LoadProfiles for files wherever they are.
func LoadProfileFiles(files ...string) (map[string]Profile, Diagnostics) {
	profiles := map[string]Profile{}
	var diags Diagnostics
	for _, file := range files {
		found, d := LoadProfileFile(file)
		for _, p := range found {
			if prev, dup := profiles[p.Name]; dup {
				d = d.Fail(p.Range, "", "profile %q is already defined at %s:%d", p.Name, prev.Range.Filename, prev.Range.Start.Line)
				continue
			}
			profiles[p.Name] = p
		}
		diags = append(diags, d...)
	}
	return profiles, diags
}

// LoadProfileFile reads the profiles of one file, in its order. One with an
// error is left out; a file that has an error outside of its profiles gives
// none.
func LoadProfileFile(path string) ([]Profile, Diagnostics) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, Diagnostics{}.unreadable(path, err)
	}
	return ParseProfiles(src, path)
}

// ParseProfiles is LoadProfileFile for the text of a file.
func ParseProfiles(src []byte, path string) ([]Profile, Diagnostics) {
	var form profilesForm
	body, diags := decode(src, path, &form, ProfileSchema())
	if body == nil {
		return nil, diags
	}
	var out []Profile
	for _, pf := range form.Profiles {
		block := blockAt(body, pf.Range)
		if block == nil {
			continue
		}
		p, d := pf.resolve(block.Body)
		diags = diags.behind(d)
		if !diags.errorsIn(block.Range()) {
			out = append(out, p)
		}
	}
	if diags.errorsOutside(body.Blocks) {
		return nil, diags
	}
	return out, diags
}

// blockAt finds the block that begins at a place. Their order is no help: a
// block with an error is not decoded.
func blockAt(body *hclsyntax.Body, at hcl.Range) *hclsyntax.Block {
	for _, b := range body.Blocks {
		if b.DefRange().Start == at.Start {
			return b
		}
	}
	return nil
}

// Spec resolves the profile against the daemon's configuration. sshKey is the
// operator's public key, "" for none.
func (p Profile) Spec(cfg *Config, sshKey string) lab.Spec {
	s := p.spec
	if s.Bundle == "" {
		s.Bundle = cfg.SecretsBundle
	}
	s.SSHKey = sshKey
	s.ProvisionTimeout = cfg.ProvisionTimeout
	return s
}

func (f *profileForm) resolve(body *hclsyntax.Body) (Profile, Diagnostics) {
	c := checker{body: body, file: f.Range.Filename}
	if !profileName.MatchString(f.Name) {
		c.failAt(f.Range, "profile name %q: use lower-case letters, digits, '.', '_' and '-', at most 63", f.Name)
	}
	p := Profile{Name: f.Name, Range: f.Range}
	p.spec.Template = f.template(&c)
	p.spec.Bundle = or(f.SecretsBundle, "")
	f.resources(&c, &p.spec)
	f.network(&c, &p.spec)
	f.agent(&c, &p.spec)
	f.behavior(&c, &p.spec)
	f.artifacts(&c, &p.spec)
	p.spec.SSHUser = "agent"
	if f.Guest != nil {
		p.spec.SSHUser = or(f.Guest.SSHUser, "agent")
	}
	if f.Repo != nil {
		p.spec.RepoPath = or(f.Repo.Path, "")
		in(&c, body, "repo", func(c *checker) {
			if p.spec.RepoPath != "" && !filepath.IsAbs(p.spec.RepoPath) {
				c.fail("path", "%q must be an absolute path in the guest", p.spec.RepoPath)
			}
		})
	}
	return p, c.diags
}

func (f *profileForm) template(c *checker) string {
	switch {
	case f.Template != nil && f.TemplateVMID != nil:
		c.fail("template", "give either template or template_vmid, not both")
	case f.Template != nil && strings.TrimSpace(*f.Template) != "":
		return *f.Template
	case f.TemplateVMID != nil && *f.TemplateVMID > 0:
		return strconv.FormatInt(*f.TemplateVMID, 10)
	case c.has("template"):
		c.fail("template", "must be the name of a template")
	case c.has("template_vmid"):
		c.fail("template_vmid", "must be a number above 0")
	default:
		c.failAt(f.Range, "profile %q needs template_vmid (a number above 0) or template (a name)", f.Name)
	}
	return ""
}

func (f *profileForm) resources(c *checker, s *lab.Spec) {
	r := resourcesForm{}
	if f.Resources != nil {
		r = *f.Resources
	}
	in(c, c.body, "resources", func(c *checker) {
		s.Cores = uint32(c.within("cores", or(r.Cores, 2), 1, 256))
		s.MemoryMB = uint64(c.within("memory_mb", or(r.MemoryMB, 2048), 128, 1<<22))
		s.DiskGB = uint64(c.within("disk_gb", or(r.DiskGB, 0), 0, 1<<16))
	})
}

func (f *profileForm) network(c *checker, s *lab.Spec) {
	n := networkForm{}
	if f.Network != nil {
		n = *f.Network
	}
	in(c, c.body, "network", func(c *checker) {
		s.NetworkMode = c.oneOf("mode", or(n.Mode, "nat"), "off", "nat", "allowlist")
		s.NetworkAllow = or(n.Allow, nil)
		if s.NetworkMode == "off" && len(s.NetworkAllow) > 0 {
			c.fail("allow", "mode is off, so nothing can be allowed")
		}
		if _, err := lab.ParseAllow(s.NetworkAllow); err != nil {
			c.fail("allow", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	})
}

func (f *profileForm) agent(c *checker, s *lab.Spec) {
	a := agentForm{}
	if f.Agent != nil {
		a = *f.Agent
	}
	in(c, c.body, "agent", func(c *checker) {
		s.AgentCommand = or(a.Command, "")
		s.AgentMode = c.oneOf("mode", or(a.Mode, "default"), "default", "dangerous")
	})
}

func (f *profileForm) behavior(c *checker, s *lab.Spec) {
	b := behaviorForm{}
	if f.Behavior != nil {
		b = *f.Behavior
	}
	in(c, c.body, "behavior", func(c *checker) {
		s.TTL = time.Duration(c.within("ttl_minutes_default", or(b.TTLMinutes, 120), 1, 60*24*365)) * time.Minute
		s.OnJobEnd = c.oneOf("on_job_end", or(b.OnJobEnd, "destroy"), "destroy", "stop", "keep")
		s.InnerSandbox = c.oneOf("inner_sandbox", or(b.InnerSandbox, "none"), "none", "bubblewrap")
		s.InnerArgs = or(b.InnerArgs, nil)
		if b.IdleStopMinutes != nil {
			c.warn("idle_stop_minutes_default", "has no effect in this version")
		}
	})
}

func (f *profileForm) artifacts(c *checker, s *lab.Spec) {
	a := artifactsForm{}
	if f.Artifacts != nil {
		a = *f.Artifacts
	}
	in(c, c.body, "artifacts", func(c *checker) {
		s.ArtifactsFor = time.Duration(c.within("retention_days", or(a.RetentionDays, 0), 0, 3650)) * 24 * time.Hour
	})
}

// in runs check against the named block's body, so that its places are found.
func in(c *checker, body *hclsyntax.Body, block string, check func(*checker)) {
	sub := checker{file: c.file}
	for _, b := range body.Blocks {
		if b.Type == block {
			sub.body = b.Body
		}
	}
	check(&sub)
	c.diags = append(c.diags, sub.diags...)
}

func (c *checker) within(name string, n, low, high int64) int64 {
	if n < low || n > high {
		c.fail(name, "%d is not between %d and %d", n, low, high)
	}
	return n
}

func (c *checker) oneOf(name, got string, names ...string) string {
	if !slices.Contains(names, got) {
		c.diags = c.diags.Fail(c.at(name), suggest(got, names), "%s: %q is not one of %s", name, got, strings.Join(names, ", "))
	}
	return got
}

func keys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }
