package check_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/config/check"
)

const (
	publicKey  = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKWnVnTTFWqAW1cyIOoLKx1pCCS5cP5mGbA2Wl1QFk7J op@host\n"
	privateKey = "AGE-SECRET-KEY-1QQQQQQQQ\n"
)

// host is a directory in the place of /etc/agentlab and of the plugins'.
type host struct {
	t   *testing.T
	dir string
}

func newHost(t *testing.T) *host {
	h := &host{t, t.TempDir()}
	for _, dir := range []string{"keys", "profiles", "plugins"} {
		if err := os.Mkdir(h.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.put("config.hcl", 0o600, h.config(""))
	h.put("keys/op.pub", 0o644, publicKey)
	h.put("keys/age.key", 0o600, privateKey)
	h.put("profiles/p.hcl", 0o644, "profile \"p\" {\n  template = \"t\"\n}\n")
	for _, name := range []string{"hyp", "net", "sec"} {
		h.put("plugins/agentlab-plugin-"+name, 0o755, "#!/bin/sh\nexit 1\n")
	}
	return h
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) put(name string, mode os.FileMode, text string) {
	h.t.Helper()
	if err := os.WriteFile(h.path(name), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Chmod(h.path(name), mode); err != nil {
		h.t.Fatal(err)
	}
}

// config is a good configuration; more stands at its end, from line 12.
func (h *host) config(more string) string {
	return fmt.Sprintf(`data_dir = "%[1]s/data"
run_dir = "/run/x"
log_file = "%[1]s/log/d.log"
profiles_dir = "%[1]s/profiles"
plugin_dir = "%[1]s/plugins"
ssh_public_key_path = "%[1]s/keys/op.pub"
secrets_bundle = "default"
plugin "hypervisor" "hyp" {}
plugin "network" "net" {}
plugin "secrets" "sec" {}
`, h.dir) + more
}

// edit changes the configuration.
func (h *host) edit(old, new string) {
	h.t.Helper()
	text := h.config("")
	if !strings.Contains(text, old) {
		h.t.Fatalf("no %q", old)
	}
	h.put("config.hcl", 0o600, strings.ReplaceAll(text, old, new))
}

// told are the diagnostics, with $D for the directory.
func (h *host) told(d config.Diagnostics) []string {
	var out []string
	for _, p := range d.Problems() {
		text := fmt.Sprintf("%s: %s: %s", p.Place(), p.Severity, p.Message)
		if p.Hint != "" {
			text += "; " + p.Hint
		}
		out = append(out, strings.ReplaceAll(text, h.dir, "$D"))
	}
	return out
}

func TestRun(t *testing.T) {
	tests := []struct {
		name   string
		change func(h *host)
		want   []string
	}{
		{"all is well", func(*host) {}, nil},
		{"no file", func(h *host) { _ = os.Remove(h.path("config.hcl")) }, []string{
			"$D/config.hcl: error: no such file; create it, or name another file",
		}},
		{"only the YAML form", func(h *host) {
			_ = os.Remove(h.path("config.hcl"))
			h.put("config.yaml", 0o600, "")
		}, []string{
			"$D/config.hcl: error: no such file; there is $D/config.yaml: run agentlab config convert -w $D/config.yaml",
		}},
		{"a directory", func(h *host) {
			_ = os.Remove(h.path("config.hcl"))
			_ = os.Mkdir(h.path("config.hcl"), 0o700)
		}, []string{"$D/config.hcl: error: is not a regular file"}},
		{"not HCL, and a bad profile", func(h *host) {
			h.put("config.hcl", 0o600, "data_dir = /srv\n")
			h.put("profiles/bad.hcl", 0o600, "profile \"bad\" {}\n")
		}, []string{
			"$D/config.hcl:1: error: a value is missing, or cannot be read; write name = value, with texts in quotes",
			"$D/profiles/bad.hcl:1: error: profile \"bad\" needs template_vmid (a number above 0) or template (a name)",
		}},
		{"readable by all", func(h *host) { h.put("config.hcl", 0o604, h.config("")) }, []string{
			"$D/config.hcl: error: mode 0604 lets others read or change it; run chmod 0600 $D/config.hcl",
		}},
		{"writable by the group", func(h *host) { h.put("config.hcl", 0o620, h.config("")) }, []string{
			"$D/config.hcl: error: mode 0620 lets others read or change it; run chmod 0600 $D/config.hcl",
		}},
		{"readable by the group", func(h *host) { h.put("config.hcl", 0o640, h.config("")) }, []string{
			"$D/config.hcl: warning: mode 0640 lets its group read it; run chmod 0600 $D/config.hcl",
		}},
		{"another's", func(h *host) { _ = os.Chown(h.path("config.hcl"), 4242, 0) }, []string{
			"$D/config.hcl: error: belongs to uid 4242, who may change it; run chown root $D/config.hcl",
		}},
		{"open directories", func(h *host) { _ = os.Chmod(h.path("profiles"), 0o777); _ = os.Chmod(h.dir, 0o777|os.ModeSticky) }, []string{
			"$D/profiles: warning: mode 0777 lets others replace what is in it; run chmod go-w $D/profiles",
		}},
		{"age key", func(h *host) { h.put("keys/age.key", 0o644, privateKey) }, []string{
			"$D/keys/age.key: error: mode 0644 of the private key $D/keys/age.key lets others read or change it; run chmod 0600 $D/keys/age.key",
		}},
		{"age key of the group", func(h *host) { h.put("keys/age.key", 0o640, privateKey) }, []string{
			"$D/keys/age.key: warning: mode 0640 of the private key $D/keys/age.key lets its group read it; run chmod 0600 $D/keys/age.key",
		}},
		{"a key that a plugin names", func(h *host) {
			h.put("other.key", 0o666, "-----BEGIN OPENSSH PRIVATE KEY-----\n")
			h.edit(`plugin "secrets" "sec" {}`, "plugin \"secrets\" \"sec\" {\n  config {\n    any = [\""+h.path("other.key")+"\"]\n  }\n}")
		}, []string{
			"$D/config.hcl:12: error: mode 0666 of the private key $D/other.key lets others read or change it; run chmod 0600 $D/other.key",
		}},
		{"a key in keys that a plugin names, too", func(h *host) {
			h.put("keys/age.key", 0o644, privateKey)
			h.edit(`plugin "secrets" "sec" {}`, "plugin \"secrets\" \"sec\" {\n  config {\n    any = \""+h.path("keys/age.key")+"\"\n  }\n}")
		}, []string{
			"$D/keys/age.key: error: mode 0644 of the private key $D/keys/age.key lets others read or change it; run chmod 0600 $D/keys/age.key",
		}},
		{"no public key", func(h *host) { _ = os.Remove(h.path("keys/op.pub")) }, []string{
			"$D/config.hcl:6: error: ssh_public_key_path: $D/keys/op.pub does not exist; make one with ssh-keygen -t ed25519, or remove the key",
		}},
		{"a private key in its place", func(h *host) { h.edit("keys/op.pub", "keys/age.key") }, []string{
			"$D/config.hcl:6: error: ssh_public_key_path: $D/keys/age.key holds a private key, which would go into every sandbox; name its public half, $D/keys/age.key.pub",
		}},
		{"no key in it", func(h *host) { h.put("keys/op.pub", 0o666, "hello\n") }, []string{
			"$D/config.hcl:6: error: ssh_public_key_path: $D/keys/op.pub holds no public key; it is one line, such as ssh-keygen writes to the file *.pub",
			"$D/config.hcl:6: error: ssh_public_key_path: mode 0666 of $D/keys/op.pub lets others change who gets into sandboxes; run chmod 0644 $D/keys/op.pub",
		}},
		{"relative", func(h *host) { h.edit(h.path("keys/op.pub"), "op.pub") }, []string{
			`$D/config.hcl:6: error: ssh_public_key_path: "op.pub" must be an absolute path`,
		}},
		{"not set", func(h *host) { h.edit("ssh_public_key_path", "# ssh_public_key_path") }, []string{
			"$D/config.hcl: warning: ssh_public_key_path is not set; agentlab ssh finds no entry to sandboxes",
		}},
		{"a pipe", func(h *host) { h.edit(h.path("keys/op.pub"), "/dev/zero") }, []string{
			"$D/config.hcl:6: error: ssh_public_key_path: /dev/zero cannot be read: it is not a regular file",
		}},
		{"directories", func(h *host) {
			h.put("data", 0o600, "")
			h.put("log", 0o600, "")
			h.edit(`"/run/x"`, `"/run/`+strings.Repeat("x", 60)+`"`)
		}, []string{
			"$D/config.hcl:1: error: data_dir: $D/data is not a directory",
			"$D/config.hcl:2: error: run_dir: folder for plugin sockets /run/" + strings.Repeat("x", 60) + "/p is longer than 57 bytes; choose a shorter run_dir",
			"$D/config.hcl:3: error: log_file: $D/log is not a directory",
		}},
		{"plugins", func(h *host) {
			_ = os.Remove(h.path("plugins/agentlab-plugin-hyp"))
			_ = os.Chmod(h.path("plugins/agentlab-plugin-net"), 0o775)
			h.edit(`"sec" {}`, "\"sec\" {\n  sha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"\n}")
		}, []string{
			"$D/config.hcl:8: error: plugin binary $D/plugins/agentlab-plugin-hyp does not exist; install the plugin, or set path in its block",
			"$D/config.hcl:9: error: $D/plugins/agentlab-plugin-net may be written by others, who could change a plugin; chmod go-w $D/plugins/agentlab-plugin-net",
			"$D/config.hcl:10: error: plugin binary $D/plugins/agentlab-plugin-sec has sha256 275239824e00e61b0a220e61a41791c7e9b4bd726f8b0c27077a338f8131c9dc, but 0000000000000000000000000000000000000000000000000000000000000000 is pinned; if this binary is the one you want, pin it: agentlab plugin lock",
		}},
		{"missing plugins", func(h *host) {
			h.put("profiles/q.hcl", 0o644, "profile \"q\" {\n  template = \"t\"\n  secrets_bundle = \"other\"\n}\n")
			h.put("config.hcl", 0o600, strings.ReplaceAll(h.config(""), "\nplugin", "\n# plugin"))
		}, []string{
			`$D/config.hcl: warning: there is no hypervisor plugin; no sandbox can be made; add plugin "hypervisor" "NAME" {}`,
			`$D/config.hcl: warning: there is no network plugin; no sandbox can be made; add plugin "network" "NAME" {}`,
			`$D/config.hcl:7: warning: secrets_bundle: there is no secrets plugin that could open "default"; add plugin "secrets" "secrets-age" {}, or remove the key`,
			`$D/profiles/q.hcl:1: warning: profile "q": there is no secrets plugin that could open "other"; add plugin "secrets" "secrets-age" {}, or remove the key`,
		}},
		{"profiles", func(h *host) {
			h.put("profiles/p.hcl", 0o644, "profile \"p\" {\n  nework {}\n}\n")
			h.put("profiles/q.yaml", 0o644, "name: q\n")
			h.put("profiles/p.yaml", 0o644, "name: p\n")
		}, []string{
			"$D/profiles: warning: there is no usable profile; jobs need one",
			`$D/profiles/p.hcl:1: error: profile "p" needs template_vmid (a number above 0) or template (a name)`,
			`$D/profiles/p.hcl:2: error: unknown block "nework"; did you mean "network"?`,
			"$D/profiles/q.yaml: warning: is not read; profiles are *.hcl; run agentlab config convert -w $D/profiles/q.yaml",
		}},
		{"much at once", func(h *host) {
			_ = os.Remove(h.path("keys/op.pub"))
			h.put("config.hcl", 0o644, h.config("metrics_listn = \"\"\nartifact_max_bytes = -1\n"))
		}, []string{
			"$D/config.hcl: error: mode 0644 lets others read or change it; run chmod 0600 $D/config.hcl",
			"$D/config.hcl:6: error: ssh_public_key_path: $D/keys/op.pub does not exist; make one with ssh-keygen -t ed25519, or remove the key",
			`$D/config.hcl:11: error: unknown key "metrics_listn"; did you mean "metrics_listen"?`,
			"$D/config.hcl:12: error: artifact_max_bytes: must be above 0",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("needs root, as the daemon does")
			}
			h := newHost(t)
			tt.change(h)
			if diff := cmp.Diff(tt.want, h.told(check.Run(h.path("config.hcl")).Diagnostics)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
