package config_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/lab"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadFillsDefaults(t *testing.T) {
	path := write(t, "config.hcl", `
agent_subnet   = "10.99.0.0/24"
secrets_bundle = "default"

plugin "hypervisor" "qemu" {
  config {
    accel = "tcg"
  }
}

plugin "network" "netfilter" {}
`)
	cfg, diags := config.Load(path)
	if len(diags) > 0 {
		t.Fatalf("diagnostics: %v", diags)
	}
	if got, want := cfg.GuestListen, netip.MustParseAddrPort("10.99.0.1:8844"); got != want {
		t.Errorf("guest_listen = %v, want %v", got, want)
	}
	if cfg.DataDir != "/var/lib/agentlab" || cfg.AgentBridge != "vmbr1" || cfg.ProvisionTimeout != 10*time.Minute {
		t.Errorf("defaults not applied: %+v", cfg)
	}
	if len(cfg.Plugins) != 2 || cfg.Plugins[0].Body == nil || cfg.Plugins[1].Body != nil {
		t.Errorf("plugins = %+v", cfg.Plugins)
	}
	if got := cfg.Plugins[0].Range.Start.Line; got != 5 {
		t.Errorf("plugin block's line = %d, want 5", got)
	}
}

func TestLoadReportsEverythingWithItsPlace(t *testing.T) {
	path := write(t, "config.hcl", `agent_subnet = "10.77.0.5/16"
data_dir = "relative"
artifact_max_bytes = 0
provisioning_timeout = "soon"
plugin "hypervisr" "qemu" {}
plugin "network" "a/b" {}
control_listen = "127.0.0.1:8845"
`)
	cfg, diags := config.Load(path)
	if cfg != nil || !diags.HasErrors() {
		t.Fatal("a bad file was taken")
	}
	text := diags.Error()
	for _, want := range []string{
		"config.hcl:1: agent_subnet: 10.77.0.5/16 has host bits set; did you mean 10.77.0.0/16?",
		"config.hcl:2: data_dir",
		"config.hcl:3: artifact_max_bytes",
		"config.hcl:4: provisioning_timeout",
		`config.hcl:5: "hypervisr" is not a kind of plugin; kinds are hypervisor, network, secrets and exposure; did you mean "hypervisor"?`,
		"config.hcl:6: plugin name",
		"config.hcl:7: warning: control_listen: has no effect",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("missing %q in:\n%s", want, text)
		}
	}
}

func TestLoadSuggestsForUnknownKeys(t *testing.T) {
	_, diags := config.Load(write(t, "config.hcl", "secrets_bundel = \"x\"\n"))
	if got := diags.Error(); !strings.Contains(got, "config.hcl:1") || !strings.Contains(got, `did you mean "secrets_bundle"?`) {
		t.Errorf("got %q", got)
	}
}

func TestLoadChecksTheMode(t *testing.T) {
	path := write(t, "config.hcl", "")
	for mode, want := range map[os.FileMode]string{
		0o600: "", 0o640: "warning: mode 0640", 0o644: "chmod 0600", 0o660: "chmod 0600",
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		cfg, diags := config.Load(path)
		if got := diags.Error(); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("mode %o: %q, want %q", mode, got, want)
		}
		if refused := cfg == nil; refused != strings.HasPrefix(want, "chmod") {
			t.Errorf("mode %o: refused = %v", mode, refused)
		}
	}
}

func TestProfiles(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"good.hcl": `
profile "yolo-ephemeral" {
  template_vmid = 9000

  resources {
    cores     = 4
    memory_mb = 8192
    disk_gb   = 40
  }

  network {
    mode  = "allowlist"
    allow = ["192.0.2.0/24:443"]
  }

  agent {
    command = "claude"
    mode    = "dangerous"
  }

  behavior {
    inner_sandbox      = "bubblewrap"
    inner_sandbox_args = ["--bind", "/scratch", "/scratch"]
  }

  artifacts {
    retention_days = 30
  }
}
`,
		"bad.hcl": `profile "bad" {
  template_vmid = 9000
  network {
    mode = "nta"
  }
  host_mounts = ["/"]
}
`,
		"worse.hcl": `profile "worse" {
  artifacts {
    retention_days = -1
  }
  behavior {
    on_job_end = "explode"
  }
}
`,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	profiles, diags := config.LoadProfiles(dir)
	if len(profiles) != 1 {
		t.Fatalf("got %d profiles, want the good one only: %v", len(profiles), diags)
	}
	got := profiles["yolo-ephemeral"].Spec(&config.Config{SecretsBundle: "default", ProvisionTimeout: time.Minute}, "ssh-ed25519 A")
	want := lab.Spec{
		Template: "9000", Cores: 4, MemoryMB: 8192, DiskGB: 40, NetworkMode: "allowlist",
		NetworkAllow: []string{"192.0.2.0/24:443"}, SSHUser: "agent", SSHKey: "ssh-ed25519 A", Bundle: "default",
		AgentCommand: "claude", AgentMode: "dangerous", InnerSandbox: "bubblewrap",
		InnerArgs: []string{"--bind", "/scratch", "/scratch"}, OnJobEnd: "destroy",
		ArtifactsFor: 30 * 24 * time.Hour, TTL: 2 * time.Hour, ProvisionTimeout: time.Minute,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	text := diags.Error()
	for _, want := range []string{"bad.hcl:6", "host_mounts", "worse.hcl:1", "template_vmid", `worse.hcl:3: retention_days: -1 is not between`, `worse.hcl:6: on_job_end: "explode" is not one of`} {
		if !strings.Contains(text, want) {
			t.Errorf("missing %q in:\n%s", want, text)
		}
	}
}

// TestValuesThatCannotWork: each is refused at its line, with what to write.
func TestValuesThatCannotWork(t *testing.T) {
	for text, want := range map[string]string{
		`guest_listen = "10.77.0.1:0"`:                         "port 0 is another one at each start, and guests are told one for as long as they live; write 10.77.0.1:8844",
		`guest_listen = "10.77.0.0:99"`:                        "10.77.0.0 is the network's or the broadcast address of agent_subnet 10.77.0.0/16, which no host has; write 10.77.0.1:99",
		`guest_listen = "10.77.255.255:8844"`:                  "; write 10.77.0.1:8844",
		`log_file = "agentlabd.log"`:                           `"agentlabd.log" must be an absolute path`,
		`ssh_public_key_path = "~/.ssh/id.pub"`:                `"~/.ssh/id.pub" must be an absolute path`,
		`agent_bridge = "a-bridge-for-agents"`:                 "at most 15 bytes",
		`run_dir = "/run/` + strings.Repeat("deep/", 12) + `"`: "; choose a shorter run_dir",
	} {
		key, _, _ := strings.Cut(text, " ")
		path := write(t, "config.hcl", "# the first line\n"+text+"\n")
		cfg, diags := config.Load(path)
		if got := diags.Error(); cfg != nil || !strings.HasPrefix(got, path+":2: "+key+": ") || !strings.Contains(got, want) || len(diags) != 1 {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{`log_file = ""`, `guest_listen = "10.77.255.254:1"`, `agent_bridge = "vmbr1.5"`} {
		if _, diags := config.Load(write(t, "config.hcl", text)); len(diags) > 0 {
			t.Errorf("%s: %v", text, diags)
		}
	}
}

// TestLoadChecksTheOwner: the file decides what root starts.
func TestLoadChecksTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a file away")
	}
	path := write(t, "config.hcl", "")
	if err := os.Chown(path, 4242, 0); err != nil {
		t.Fatal(err)
	}
	cfg, diags := config.Load(path)
	if got, want := diags.Error(), path+": belongs to uid 4242, who may change it; run chown root "+path; cfg != nil || got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRightsOfPlugins(t *testing.T) {
	tests := []struct{ text, want string }{
		{`allow = ["CAP_NET_ADMIN", "network", "root", "workloads"]`, ""},
		{`allow = ["user:acme"]`, ""},
		{`allow = []`, ""},
		{`confine = false`, ""},
		{`allow = ["CAP_MAGIC"]`, `config.hcl:1: allow: "CAP_MAGIC" is neither a capability such as "CAP_NET_ADMIN" nor "root", "user:NAME", "network" or "workloads"`},
		{`allow = ["user:root"]`, `config.hcl:1: allow: "user:root" is neither a capability such as "CAP_NET_ADMIN" nor "root", "user:NAME", "network" or "workloads"`},
		{"confine = false\n  allow = []", "config.hcl:1: allow limits what a plugin may ask for, and confine = false gives it everything; write one of them"},
		{`sha256 = "00"`, "config.hcl:1: sha256 has 64 hexadecimal digits; agentlab plugin lock writes it"},
	}
	for _, tt := range tests {
		cfg, diags := config.Parse([]byte("plugin \"network\" \"x\" {\n  "+tt.text+"\n}\n"), "config.hcl")
		if got := diags.Error(); got != tt.want {
			t.Errorf("%s: %s", tt.text, got)
		}
		b := cfg.Plugins[0]
		if b.Unconfined != strings.Contains(tt.text, "confine") || (b.Allow != nil) != strings.Contains(tt.text, "allow") {
			t.Errorf("%s: %+v", tt.text, b)
		}
	}
}
