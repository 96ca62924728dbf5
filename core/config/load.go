package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
)

// fileForm is config.hcl as written; a nil field takes its default.
type fileForm struct {
	DataDir     *string `hcl:"data_dir"`
	RunDir      *string `hcl:"run_dir"`
	LogFile     *string `hcl:"log_file"`
	ProfilesDir *string `hcl:"profiles_dir"`
	PluginDir   *string `hcl:"plugin_dir"`

	AgentBridge *string `hcl:"agent_bridge"`
	AgentSubnet *string `hcl:"agent_subnet"`
	GuestListen *string `hcl:"guest_listen"`

	SSHPublicKeyPath *string `hcl:"ssh_public_key_path"`
	SecretsBundle    *string `hcl:"secrets_bundle"`

	ArtifactMaxBytes    *int64  `hcl:"artifact_max_bytes"`
	ArtifactQuotaBytes  *int64  `hcl:"artifact_quota_bytes"`
	LogMaxBytes         *int64  `hcl:"log_max_bytes"`
	ProvisioningTimeout *string `hcl:"provisioning_timeout"`

	MetricsListen           *string   `hcl:"metrics_listen"`
	ControlListen           *string   `hcl:"control_listen"`
	ControlAuthToken        *string   `hcl:"control_auth_token"`
	ControlAllowCIDRs       *[]string `hcl:"control_allow_cidrs"`
	IdleStopEnabled         *bool     `hcl:"idle_stop_enabled"`
	IdleStopInterval        *string   `hcl:"idle_stop_interval"`
	IdleStopMinutes         *int64    `hcl:"idle_stop_minutes_default"`
	IdleStopCPU             *float64  `hcl:"idle_stop_cpu_threshold"`
	ArtifactTokenTTLMinutes *int64    `hcl:"artifact_token_ttl_minutes"`
	SkillName               *string   `hcl:"claude_skill_bundle_name"`
	SkillVersion            *string   `hcl:"claude_skill_bundle_version"`

	Plugins []pluginForm `hcl:"plugin,block"`
}

type pluginForm struct {
	Kind    string      `hcl:"kind,label"`
	Name    string      `hcl:"name,label"`
	Path    *string     `hcl:"path"`
	SHA256  *string     `hcl:"sha256"`
	Confine *bool       `hcl:"confine"`
	Allow   *[]string   `hcl:"allow"`
	Config  *configForm `hcl:"config,block"`
	Range   hcl.Range   `hcl:",def_range"`
}

type configForm struct {
	Body hcl.Body `hcl:",remain"`
}

// Load reads the file. The Config is nil when the diagnostics hold an error;
// warnings alone leave it usable.
func Load(path string) (*Config, Diagnostics) {
	cfg, diags := Inspect(path)
	if diags.HasErrors() {
		return nil, diags
	}
	return cfg, diags
}

// Inspect is Load for looking only: beside errors it gives what could be read,
// nil when that is nothing. What is wrong has its default or no value.
func Inspect(path string) (*Config, Diagnostics) {
	diags, readable := checkFile(path)
	if !readable {
		return nil, diags
	}
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, diags.unreadable(path, err)
	}
	cfg, d := Parse(src, path)
	return cfg, append(diags, d...)
}

// Parse is Inspect for the text of a file.
func Parse(src []byte, path string) (*Config, Diagnostics) {
	var form fileForm
	body, diags := decode(src, path, &form, Schema())
	if body == nil {
		return nil, diags
	}
	cfg, d := form.resolve(path, body)
	cfg.body = body
	cfg.sources(body, src)
	return cfg, append(append(diags, diags.news(d)...), warnNoEffect(body)...)
}

// decode decodes what it can. The body is nil when the text is not HCL.
func decode(src []byte, path string, into any, fields []Field) (*hclsyntax.Body, Diagnostics) {
	file, diags := hclsyntax.ParseConfig(src, path, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, words{src: src, fields: fields}.of(diags)
	}
	body := file.Body.(*hclsyntax.Body)
	said := slices.DeleteFunc(gohcl.DecodeBody(body, nil, into), func(d *hcl.Diagnostic) bool {
		return d.Summary == unsupportedKey || d.Summary == unsupportedBlock // said by strangers
	})
	return body, append(strangers(body, fields), words{src, body, fields}.of(said)...)
}

// How hclsyntax titles what strangers says better.
const (
	unsupportedKey   = "Unsupported argument"
	unsupportedBlock = "Unsupported block type"
)

// strangers finds the keys and blocks that no field is for, at every depth.
func strangers(body *hclsyntax.Body, fields []Field) Diagnostics {
	var out Diagnostics
	for _, name := range slices.Sorted(maps.Keys(body.Attributes)) {
		at := body.Attributes[name].SrcRange
		switch f, ok := Find(fields, name); {
		case !ok:
			out = out.Fail(at, Stranger(name, fields), "unknown key %q", name)
		case f.Type == "":
			out = out.Fail(at, "write "+name+strings.Repeat(` "…"`, f.Labels)+" { … }", "%q is a block", name)
		}
	}
	for _, b := range body.Blocks {
		switch f, ok := Find(fields, b.Type); {
		case !ok:
			out = out.Fail(b.DefRange(), Stranger(b.Type, fields), "unknown block %q", b.Type)
		case f.Type != "":
			out = out.Fail(b.DefRange(), "write "+b.Type+" = …", "%q is a key", b.Type)
		case !f.Open:
			out = append(out, strangers(b.Body, f.Fields)...)
		}
	}
	return out
}

func (f *fileForm) resolve(path string, body *hclsyntax.Body) (*Config, Diagnostics) {
	cfg := &Config{
		File:               path,
		DataDir:            or(f.DataDir, defaultDataDir),
		RunDir:             or(f.RunDir, defaultRunDir),
		LogFile:            or(f.LogFile, defaultLogFile),
		ProfilesDir:        or(f.ProfilesDir, defaultProfilesDir),
		PluginDir:          or(f.PluginDir, defaultPluginDir),
		AgentBridge:        or(f.AgentBridge, defaultBridge),
		SSHPublicKeyPath:   or(f.SSHPublicKeyPath, ""),
		SecretsBundle:      or(f.SecretsBundle, ""),
		ArtifactMaxBytes:   or(f.ArtifactMaxBytes, defaultArtifactMaxBytes),
		ArtifactQuotaBytes: or(f.ArtifactQuotaBytes, defaultArtifactQuota),
		LogMaxBytes:        or(f.LogMaxBytes, defaultLogMaxBytes),
		ProvisionTimeout:   defaultProvisionTimeout,
	}
	c := checker{body: body, file: path}
	if f.ProvisioningTimeout != nil {
		cfg.ProvisionTimeout = c.duration("provisioning_timeout", *f.ProvisioningTimeout, 10*time.Second, time.Hour)
	}
	c.network(cfg, or(f.AgentSubnet, defaultSubnet), or(f.GuestListen, ""))
	c.absolute("data_dir", cfg.DataDir)
	c.runDir(cfg.RunDir)
	c.absolute("profiles_dir", cfg.ProfilesDir)
	c.absolute("plugin_dir", cfg.PluginDir)
	c.absoluteOrNone("log_file", cfg.LogFile)
	c.absoluteOrNone("ssh_public_key_path", cfg.SSHPublicKeyPath)
	c.bridge(cfg.AgentBridge)
	c.positive("artifact_max_bytes", cfg.ArtifactMaxBytes)
	c.positive("artifact_quota_bytes", cfg.ArtifactQuotaBytes)
	c.positive("log_max_bytes", cfg.LogMaxBytes)
	c.plugins(cfg, f.Plugins)
	return cfg, c.diags
}

// network fills the subnet and the guest listener, whose default is port 8844
// on the subnet's first address.
func (c *checker) network(cfg *Config, subnet, listen string) {
	prefix, err := netip.ParsePrefix(subnet)
	switch {
	case err != nil || !prefix.Addr().Is4():
		c.fail("agent_subnet", "%q is not an IPv4 subnet such as %s", subnet, defaultSubnet)
		return
	case prefix != prefix.Masked():
		c.diags = c.diags.Fail(c.at("agent_subnet"), fmt.Sprintf("did you mean %s?", prefix.Masked()), "agent_subnet: %s has host bits set", subnet)
		return
	case prefix.Bits() > 28 || prefix.Bits() < 8:
		c.fail("agent_subnet", "%s must be between /8 and /28", subnet)
		return
	}
	cfg.AgentSubnet = prefix
	cfg.GuestListen = netip.AddrPortFrom(prefix.Addr().Next(), defaultGuestPort)
	if listen == "" {
		return
	}
	ap, err := netip.ParseAddrPort(listen)
	switch {
	case err != nil:
		c.fail("guest_listen", "%q is not an address and port such as %s", listen, cfg.GuestListen)
	case !prefix.Contains(ap.Addr()):
		c.fail("guest_listen", "%s is outside agent_subnet %s; guests reach only the host's address in their own subnet", ap.Addr(), prefix)
	case ap.Addr() == prefix.Addr() || ap.Addr() == last(prefix):
		c.diags = c.diags.Fail(c.at("guest_listen"), fmt.Sprintf("write %s", netip.AddrPortFrom(prefix.Addr().Next(), ap.Port())),
			"guest_listen: %s is the network's or the broadcast address of agent_subnet %s, which no host has", ap.Addr(), prefix)
	case ap.Port() == 0:
		c.diags = c.diags.Fail(c.at("guest_listen"), fmt.Sprintf("write %s", netip.AddrPortFrom(ap.Addr(), defaultGuestPort)),
			"guest_listen: port 0 is another one at each start, and guests are told one for as long as they live")
	default:
		cfg.GuestListen = ap
	}
}

func (c *checker) plugins(cfg *Config, forms []pluginForm) {
	seen := map[string]hcl.Range{}
	for _, p := range forms {
		block := PluginBlock{
			Kind: p.Kind, Name: p.Name, Path: or(p.Path, ""), SHA256: or(p.SHA256, ""), Range: p.Range,
			Unconfined: !or(p.Confine, true), Allow: or(p.Allow, nil),
		}
		c.pluginRights(p)
		if p.Config != nil {
			block.Body = p.Config.Body
		}
		if !known(p.Kind) {
			c.diags = c.diags.Fail(p.Range, suggest(p.Kind, Kinds()), "%q is not a kind of plugin; kinds are hypervisor, network, secrets and exposure", p.Kind)
			continue
		}
		if prev, ok := seen[p.Kind]; ok {
			c.failAt(p.Range, "a second %s plugin; the first is at line %d, and one process serves each kind", p.Kind, prev.Start.Line)
			continue
		}
		seen[p.Kind] = p.Range
		if p.Name == "" || filepath.Base(p.Name) != p.Name {
			c.failAt(p.Range, "plugin name %q must be a plain name, it is part of a file name", p.Name)
			continue
		}
		cfg.Plugins = append(cfg.Plugins, block)
	}
}

// pluginRights checks what a block says of the privileges of its plugin, and of
// its binary.
func (c *checker) pluginRights(p pluginForm) {
	if pin := or(p.SHA256, ""); pin != "" && !hexSum.MatchString(pin) {
		c.failAt(p.Range, "sha256 has 64 hexadecimal digits; agentlab plugin lock writes it")
	}
	if p.Allow == nil {
		return
	}
	if !or(p.Confine, true) {
		c.failAt(p.Range, "allow limits what a plugin may ask for, and confine = false gives it everything; write one of them")
	}
	for _, word := range *p.Allow {
		if !launch.IsWord(word) {
			c.failAt(p.Range, `allow: %q is neither a capability such as "CAP_NET_ADMIN" nor "root", "user:NAME", "network" or "workloads"`, word)
		}
	}
}

var hexSum = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)

// sources fills in what the blocks say, whatever their lines and comments.
func (c *Config) sources(body *hclsyntax.Body, src []byte) {
	for i, p := range c.Plugins {
		b := blockAt(body, p.Range)
		if b == nil {
			continue
		}
		tokens, _ := hclsyntax.LexConfig(b.Range().SliceBytes(src), "", hcl.InitialPos)
		for _, t := range tokens {
			if t.Type != hclsyntax.TokenComment && t.Type != hclsyntax.TokenNewline {
				c.Plugins[i].source = append(c.Plugins[i].source, string(t.Bytes))
			}
		}
	}
}

// checkFile refuses a file that others may read or change: it names keys, may
// hold a token, and decides what root starts.
func checkFile(path string) (diags Diagnostics, readable bool) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return diags.Fail(WholeFile(path), createHint(path), "no such file"), false
	case err != nil:
		return diags.unreadable(path, err), false
	case !st.Mode().IsRegular():
		return diags.Fail(WholeFile(path), "", "is not a regular file"), false
	}
	if uid, foreign := ForeignOwner(st); foreign {
		diags = diags.Fail(WholeFile(path), "run chown root "+path, "belongs to uid %d, who may change it", uid)
	}
	switch mode := st.Mode().Perm(); {
	case mode&0o027 != 0:
		diags = diags.Fail(WholeFile(path), "run chmod 0600 "+path, "mode %04o lets others read or change it", mode)
	case mode&0o040 != 0:
		diags = diags.Warn(WholeFile(path), "run chmod 0600 "+path, "mode %04o lets its group read it", mode)
	}
	return diags, true
}

func (d Diagnostics) unreadable(path string, err error) Diagnostics {
	how := ""
	if errors.Is(err, fs.ErrPermission) {
		how = "root may read it"
	}
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		err = p.Err // the place says which file
	}
	return d.Fail(WholeFile(path), how, "cannot be read: %v", err)
}

// createHint knows the YAML form that the file may still have.
func createHint(path string) string {
	for _, ext := range []string{".yaml", ".yml"} {
		old := strings.TrimSuffix(path, filepath.Ext(path)) + ext
		if _, err := os.Stat(old); err == nil {
			return fmt.Sprintf("there is %s: run agentlab config convert -w %s", old, old)
		}
	}
	return "create it, or name another file"
}

// Err turns diagnostics with errors into one error of class Invalid, nil
// otherwise.
func (d Diagnostics) Err() error {
	if !d.HasErrors() {
		return nil
	}
	return fault.New(fault.Invalid, "configuration: %s", d.Error())
}

func or[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}
