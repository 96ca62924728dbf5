package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/agentlab/agentlab/sdk/plugin"
)

// Config is the daemon's configuration with defaults applied.
type Config struct {
	File string // where it was read from

	DataDir     string // database, artifacts, plugin state
	RunDir      string // sockets; short, see unix(7) on sun_path
	LogFile     string // "" logs to stderr
	ProfilesDir string
	PluginDir   string

	AgentBridge string
	AgentSubnet netip.Prefix
	GuestListen netip.AddrPort // its address is the host's own in AgentSubnet

	SSHPublicKeyPath string
	SecretsBundle    string // "" gives sandboxes no secrets

	ArtifactMaxBytes   int64 // one file
	ArtifactQuotaBytes int64 // one job
	LogMaxBytes        int64 // one job's agent.log
	ProvisionTimeout   time.Duration

	Plugins []PluginBlock

	body *hclsyntax.Body
}

// At is where the file sets the key, the file as a whole where it does not.
func (c *Config) At(key string) hcl.Range {
	return (&checker{body: c.body, file: c.File}).at(key)
}

// PluginBlock is one plugin block: one process of one kind.
type PluginBlock struct {
	Kind   string // hypervisor, network, secrets, exposure
	Name   string // second label; the binary is agentlab-plugin-<name> unless Path is set
	Path   string
	SHA256 string // pin of the binary, hex; "" for none
	// Unconfined: confine = false. Allow is the most that the plugin may ask for,
	// nil anything.
	Unconfined bool
	Allow      []string
	Body       hcl.Body // of its config block; nil when there is none
	Range      hcl.Range

	source []string // its tokens without comments, to tell a change from a new line
}

// Binary is the path of the plugin's binary.
func (c *Config) Binary(b PluginBlock) string {
	if b.Path != "" {
		return b.Path
	}
	return filepath.Join(c.PluginDir, plugin.BinaryPrefix+b.Name)
}

// String is the block's head as it is written.
func (b PluginBlock) String() string { return fmt.Sprintf("plugin %q %q", b.Kind, b.Name) }

// Words are the block's tokens without comments: two blocks with the same words
// say the same.
func (b PluginBlock) Words() []string { return b.source }

// Defaults. The directories are those of the packaged daemon.
const (
	DefaultFile             = "/etc/agentlab/config.hcl"
	defaultDataDir          = "/var/lib/agentlab"
	defaultRunDir           = "/run/agentlab"
	defaultLogFile          = "/var/log/agentlab/agentlabd.log"
	defaultProfilesDir      = "/etc/agentlab/profiles"
	defaultPluginDir        = "/usr/lib/agentlab/plugins"
	defaultBridge           = "vmbr1"
	defaultSubnet           = "10.77.0.0/16"
	defaultGuestPort        = 8844
	defaultArtifactMaxBytes = 256 << 20
	defaultArtifactQuota    = 2 << 30
	defaultLogMaxBytes      = 64 << 20
	defaultProvisionTimeout = 10 * time.Minute
)

// Kinds are the kinds of plugin, in the order in which they are needed.
func Kinds() []string { return []string{"network", "hypervisor", "secrets", "exposure"} }

// noEffectYet are keys of the runbook that this version reads and warns about.
var noEffectYet = map[string]bool{
	"metrics_listen": true, "control_listen": true, "control_auth_token": true,
	"control_allow_cidrs": true, "idle_stop_enabled": true, "idle_stop_interval": true,
	"idle_stop_minutes_default": true, "idle_stop_cpu_threshold": true,
	"artifact_token_ttl_minutes": true, "claude_skill_bundle_name": true,
	"claude_skill_bundle_version": true,
}

// takesOver are the fields of Config that a running daemon takes over from a
// file that is read anew; keys of all others need a restart.
var takesOver = []string{
	"ProfilesDir", "SSHPublicKeyPath", "SecretsBundle",
	"ArtifactMaxBytes", "ArtifactQuotaBytes", "LogMaxBytes", "ProvisionTimeout", "Plugins",
}
