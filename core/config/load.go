package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/agentlab/agentlab/sdk/fault"
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
	Kind   string      `hcl:"kind,label"`
	Name   string      `hcl:"name,label"`
	Path   *string     `hcl:"path"`
	SHA256 *string     `hcl:"sha256"`
	Config *configForm `hcl:"config,block"`
	Range  hcl.Range   `hcl:",def_range"`
}

type configForm struct {
	Body hcl.Body `hcl:",remain"`
}

// Load reads the file. The Config is nil when the diagnostics hold an error;
// warnings alone leave it usable.
func Load(path string) (*Config, Diagnostics) {
	diags := checkMode(path)
	if diags.HasErrors() {
		return nil, diags
	}
	var form fileForm
	body, d := decodeFile(path, &form)
	diags = append(diags, d...)
	if diags.HasErrors() {
		return nil, diags
	}
	cfg, d := form.resolve(path, body)
	diags = append(diags, d...)
	diags = append(diags, warnNoEffect(body)...)
	if diags.HasErrors() {
		return nil, diags
	}
	return cfg, diags
}

func decodeFile(path string, into any) (*hclsyntax.Body, Diagnostics) {
	file, diags := hclparse.NewParser().ParseHCLFile(path)
	if diags.HasErrors() {
		return nil, Diagnostics(diags)
	}
	diags = append(diags, gohcl.DecodeBody(file.Body, nil, into)...)
	body, _ := file.Body.(*hclsyntax.Body)
	return body, Diagnostics(diags)
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
	c.absolute("run_dir", cfg.RunDir)
	c.absolute("profiles_dir", cfg.ProfilesDir)
	c.absolute("plugin_dir", cfg.PluginDir)
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
		c.fail("agent_subnet", "%s has host bits set; did you mean %s?", subnet, prefix.Masked())
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
	default:
		cfg.GuestListen = ap
	}
}

func (c *checker) plugins(cfg *Config, forms []pluginForm) {
	seen := map[string]hcl.Range{}
	for _, p := range forms {
		block := PluginBlock{
			Kind: p.Kind, Name: p.Name, Path: or(p.Path, ""), SHA256: or(p.SHA256, ""), Range: p.Range,
		}
		if p.Config != nil {
			block.Body = p.Config.Body
		}
		if !known(p.Kind) {
			c.failAt(p.Range, "%q is not a kind of plugin; kinds are hypervisor, network, secrets and exposure%s", p.Kind, suggest(p.Kind, Kinds()))
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

// checkMode refuses a file that others may read or the group may change: it
// names keys and may hold a token.
func checkMode(path string) Diagnostics {
	var diags Diagnostics
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return diags.add(hcl.DiagError, hcl.Range{Filename: path}, "no such file; create it, or name another with --config")
	case err != nil:
		return diags.add(hcl.DiagError, hcl.Range{Filename: path}, fmt.Sprintf("cannot be read: %v", err))
	}
	mode := st.Mode().Perm()
	switch {
	case mode&0o027 != 0:
		return diags.add(hcl.DiagError, hcl.Range{Filename: path}, fmt.Sprintf("mode %04o lets others read or change it; run chmod 0600 %s", mode, path))
	case mode&0o040 != 0:
		return diags.add(hcl.DiagWarning, hcl.Range{Filename: path}, fmt.Sprintf("mode %04o lets its group read it; 0600 is better", mode))
	}
	return diags
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
