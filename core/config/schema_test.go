package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEveryKeyIsDescribed keeps the table whole: a key without a line in it is
// missing from the reference, a line without a key promises too much.
func TestEveryKeyIsDescribed(t *testing.T) {
	seen := map[string]bool{}
	var walk func(fields []Field, path string)
	walk = func(fields []Field, path string) {
		for _, f := range fields {
			at := strings.TrimPrefix(path+"."+f.Name, ".")
			seen[at] = true
			if !strings.HasSuffix(f.Help, ".") {
				t.Errorf("%s: describe it in keyTable (keys.go)", at)
			}
			walk(f.Fields, at)
		}
	}
	walk(Schema(), "")
	walk(ProfileSchema(), "")
	for at := range keyTable {
		if !seen[at] {
			t.Errorf("keyTable has %s, which is no key", at)
		}
	}
}

// TestDefaultsAreAsDescribed loads every default as it is described and wants
// what an empty file gives.
func TestDefaultsAreAsDescribed(t *testing.T) {
	var config strings.Builder
	for _, f := range Schema() {
		if f.Default != "" {
			fmt.Fprintf(&config, "%s = %s\n", f.Name, f.Default)
		}
	}
	got, diags := Load(put(t, "config.hcl", config.String()))
	want, _ := Load(put(t, "config.hcl", ""))
	if got == nil {
		t.Fatal(diags)
	}
	got.File, got.body, want.body = want.File, nil, nil
	if diff := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)); diff != "" {
		t.Error(diff)
	}

	profile := func(body string) []Profile {
		found, diags := LoadProfileFile(put(t, "p.hcl", "profile \"p\" {\n  template = \"t\"\n"+body+"}\n"))
		if len(found) != 1 {
			t.Fatal(diags)
		}
		return found
	}
	var blocks strings.Builder
	for _, b := range ProfileSchema()[0].Fields {
		fmt.Fprintf(&blocks, "\n%s {\n", b.Name)
		for _, f := range b.Fields {
			if f.Default != "" {
				fmt.Fprintf(&blocks, "%s = %s\n", f.Name, f.Default)
			}
		}
		blocks.WriteString("}\n")
		if b.Type != "" {
			blocks.Reset()
		}
	}
	a, b := profile("")[0].spec, profile(blocks.String())[0].spec
	if diff := cmp.Diff(fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", b)); diff != "" {
		t.Error(diff)
	}
}

func put(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStrangersAtEveryDepth(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"key", "data_dri = \"/x\"\n", `config.hcl:1: unknown key "data_dri"; did you mean "data_dir"?`},
		{"block", "\nplugni \"network\" \"x\" {}\n", `config.hcl:2: unknown block "plugni"; did you mean "plugin"?`},
		{"in a plugin block", "plugin \"network\" \"x\" {\n  pth = \"/x\"\n}\n", `config.hcl:2: unknown key "pth"; did you mean "path"?`},
		{"its own in a plugin block", "plugin \"network\" \"x\" {\n  world = \"/x\"\n}\n", `config.hcl:2: unknown key "world"; the plugin's own keys go into its block config`},
		{"its block in a plugin block", "plugin \"network\" \"x\" {\n  vmids {}\n}\n", `config.hcl:2: unknown block "vmids"; the plugin's own keys go into its block config`},
		{"block in a plugin block", "plugin \"network\" \"x\" {\n  confi {}\n}\n", `config.hcl:2: unknown block "confi"; did you mean "config"?`},
		{"key for block", "plugin = \"x\"\n", `config.hcl:1: "plugin" is a block; write plugin "…" "…" { … }`},
		{"block for key", "data_dir {}\n", `config.hcl:1: "data_dir" is a key; write data_dir = …`},
		{"the profile's", "template_vmid = 9000\n", `config.hcl:1: unknown key "template_vmid"; it belongs in the block profile`},
		{"the plugin's", "secrets_age_key_path = \"/k\"\n", `config.hcl:1: unknown key "secrets_age_key_path"; it belongs to the plugin: identity in the config block of plugin "secrets" "secrets-age"`},
		{"nothing like it", "zzzzzz = 1\n", "config.hcl:1: unknown key \"zzzzzz\"\n"},
		{"profile", "profile \"p\" {\n  template = \"t\"\n  behaviour {}\n}\n", `p.hcl:3: unknown block "behaviour"; did you mean "behavior"?`},
		{"resources", "profile \"p\" {\n  template = \"t\"\n  resources {\n    memory = 1\n    core = 1\n  }\n}\n", `p.hcl:5: unknown key "core"; did you mean "cores"?`},
		{"network", "profile \"p\" {\n  network {\n    alow = []\n  }\n}\n", `p.hcl:3: unknown key "alow"; did you mean "allow"?`},
		{"agent", "profile \"p\" {\n  agent {\n    comand = \"\"\n  }\n}\n", `p.hcl:3: unknown key "comand"; did you mean "command"?`},
		{"behavior", "profile \"p\" {\n  behavior {\n    ttl_minute_default = 1\n  }\n}\n", `p.hcl:3: unknown key "ttl_minute_default"; did you mean "ttl_minutes_default"?`},
		{"repo", "profile \"p\" {\n  repo {\n    paht = \"\"\n  }\n}\n", `p.hcl:3: unknown key "paht"; did you mean "path"?`},
		{"guest", "profile \"p\" {\n  guest {\n    sshuser = \"\"\n  }\n}\n", `p.hcl:3: unknown key "sshuser"; did you mean "ssh_user"?`},
		{"elsewhere", "profile \"p\" {\n  cores = 4\n}\n", `p.hcl:2: unknown key "cores"; it belongs in the block resources of the block profile`},
		{"the daemon's", "profile \"p\" {\n  metrics_listen = \"\"\n}\n", `p.hcl:2: unknown key "metrics_listen"; it belongs in config.hcl`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var diags Diagnostics
			if strings.Contains(tt.want, "p.hcl") {
				_, diags = LoadProfileFile(put(t, "p.hcl", tt.text))
			} else {
				_, diags = Load(put(t, "config.hcl", tt.text))
			}
			if got := diags.Error() + "\n"; !strings.Contains(got, tt.want) || strings.Contains(got, "Unsupported") {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestAllAtOnce has errors of every sort in one file and wants them all, each
// once.
func TestAllAtOnce(t *testing.T) {
	path := put(t, "config.hcl", `data_dri = "/x"
run_dir = ["/x"]
agent_subnet = "10.0.0.1/8"
plugin "netwrok" "x" {
  pth = "/x"
}
plugin "network" {
}
plugin "secrts" "x" { pth = "/x" }
`)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	_, diags := Load(path)
	var got []string
	for _, p := range diags.Problems() {
		got = append(got, fmt.Sprintf("%d %s", p.Line, p.Severity))
	}
	slices.Sort(got)
	want := []string{"0 error", "1 error", "2 error", "3 error", "4 error", "5 error", "7 error", "9 error", "9 error"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\n%s", diff, diags.Error())
	}
}

func TestOneBadProfileOfAFile(t *testing.T) {
	path := put(t, "p.hcl", `profile "good" {
  template = "t"
}
profile {
  template = "t"
}
profile "bad" {
  template_vmid = "many"
  network {
    mode = "natt"
  }
}
profile "late" {
  template = "u"
}
`)
	found, diags := LoadProfileFile(path)
	var names []string
	for _, p := range found {
		names = append(names, p.Name+" "+p.spec.Template)
	}
	if diff := cmp.Diff([]string{"good t", "late u"}, names); diff != "" {
		t.Errorf("%s\n%s", diff, diags.Error())
	}
	for _, want := range []string{":4: ", ":8: ", `:10: mode: "natt" is not one of off, nat, allowlist; did you mean "nat"?`} {
		if !strings.Contains(diags.Error(), want) {
			t.Errorf("no %q in\n%s", want, diags.Error())
		}
	}
	if n := strings.Count(diags.Error(), ":8: "); n != 1 {
		t.Errorf("line 8 is told %d times:\n%s", n, diags.Error())
	}
}

func TestAnErrorOutsideOfProfiles(t *testing.T) {
	found, diags := LoadProfileFile(put(t, "p.hcl", "cores = 4\nprofile \"good\" {\n  template = \"t\"\n}\n"))
	if len(found) > 0 || !diags.HasErrors() {
		t.Errorf("took %v of a file with %v", found, diags)
	}
}

func TestTakeOver(t *testing.T) {
	load := func(text string) *Config {
		cfg, diags := Load(put(t, "config.hcl", text))
		if cfg == nil {
			t.Fatal(diags)
		}
		return cfg
	}
	const plugins = "plugin \"network\" \"n\" {}\nplugin \"hypervisor\" \"h\" {\n  config {\n    a = 1\n  }\n}\n"
	running := load("secrets_bundle = \"old\"\n" + plugins)
	if fresh := NewPlugins(running, load(strings.Replace(plugins, "a = 1", "a = 2", 1))); len(fresh) != 1 || fresh[0].Name != "h" {
		t.Errorf("new blocks: %v", fresh)
	}
	if fresh := NewPlugins(running, load("plugin_dir = \"/p\"\n"+plugins)); len(fresh) != 2 {
		t.Errorf("blocks with another binary: %v", fresh)
	}
	tests := []struct {
		name, text string
		changed    []string
		bundle     string
	}{
		{"the same", "secrets_bundle = \"old\"\n" + plugins, nil, "old"},
		{"live", "secrets_bundle = \"new\"\n" + plugins, nil, "new"},
		{"defaults written down", "data_dir = \"/var/lib/agentlab\"\n" + plugins, nil, ""},
		{"fixed", "data_dir = \"/d\"\nagent_subnet = \"10.9.0.0/16\"\n" + plugins, []string{"data_dir", "agent_subnet", "guest_listen"}, ""},
		{"comments and order", "# c\n\nplugin \"hypervisor\" \"h\" {\n  # c\n  config { // c\n    a    = 1\n  }\n}\nplugin \"network\" \"n\" {}\n", nil, ""},
		{"plugin's config", strings.Replace(plugins, "a = 1", "a = 2", 1), nil, ""},
		{"plugin's binary", strings.Replace(plugins, "{}", "{\n  path = \"/x\"\n}", 1), nil, ""},
		{"other plugin", strings.Replace(plugins, `"n"`, `"m"`, 1), nil, ""},
		{"none", "", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now, changed := TakeOver(running, load(tt.text))
			if diff := cmp.Diff(tt.changed, changed); diff != "" {
				t.Error(diff)
			}
			if now.SecretsBundle != tt.bundle || now.DataDir != running.DataDir || now.AgentSubnet != running.AgentSubnet {
				t.Errorf("got %+v", now)
			}
		})
	}
}

// TestFieldsHaveKeys wants a key for every field, so that what needs a restart
// is told by its name.
func TestFieldsHaveKeys(t *testing.T) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if f.Name == "File" || f.Name == "Plugins" || !f.IsExported() {
			continue
		}
		if _, ok := Find(Schema(), keyOf(f.Name)); !ok {
			t.Errorf("no key fills %s; keyOf gives %q", f.Name, keyOf(f.Name))
		}
	}
}
