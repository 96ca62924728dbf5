package convert_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/config/convert"
)

// snippets are the pairs X.yaml and X.hcl of an archive.
func snippets(t testing.TB, archive string) map[string][2]string {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", archive))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][2]string{}
	for _, f := range a.Files {
		name, ext := strings.TrimSuffix(f.Name, filepath.Ext(f.Name)), filepath.Ext(f.Name)
		pair := out[name]
		if ext == ".yaml" {
			pair[0] = string(f.Data)
		} else {
			pair[1] = string(f.Data)
		}
		out[name] = pair
	}
	if len(out) == 0 {
		t.Fatalf("nothing in %s", archive)
	}
	return out
}

func TestSnippets(t *testing.T) {
	for _, archive := range []string{"runbook.txtar", "comments.txtar"} {
		for name, pair := range snippets(t, archive) {
			t.Run(name, func(t *testing.T) {
				r, diags := convert.YAML([]byte(pair[0]), name+".yaml")
				if diags.HasErrors() {
					t.Fatal(diags)
				}
				if diff := cmp.Diff(pair[1], string(r.HCL)); diff != "" {
					t.Error(diff)
				}
				holds(t, pair[0], r)
			})
		}
	}
}

// holds wants of a result what is promised of every one: it is formatted and it
// loads.
func holds(t *testing.T, src string, r convert.Result) {
	t.Helper()
	if again := hclwrite.Format(r.HCL); !bytes.Equal(again, r.HCL) {
		t.Errorf("not formatted: %s", cmp.Diff(string(r.HCL), string(again)))
	}
	var diags config.Diagnostics
	switch r.Kind {
	case convert.Config:
		_, diags = config.Parse(r.HCL, "x.hcl")
	case convert.Profile:
		_, diags = config.ParseProfiles(r.HCL, "x.hcl")
	case convert.Part:
		_, diags = config.ParseProfiles([]byte("profile \"p\" {\n  template = \"t\"\n"+string(r.HCL)+"\n}\n"), "x.hcl")
	default:
		t.Errorf("kind %q", r.Kind)
	}
	if diags.HasErrors() {
		t.Errorf("does not load: %v\n%s\nfrom\n%s", diags, r.HCL, src)
	}
}

func TestKinds(t *testing.T) {
	for src, want := range map[string]convert.Kind{
		"name: p\ntemplate: t\n":                      convert.Profile,
		"template: t\nname: p\nsecrets_bundle: b\n":   convert.Profile,
		"secrets_bundle: b\n":                         convert.Config,
		"agent: {mode: default}\nsecrets_bundle: b\n": convert.Part,
		"secrets_age_key_path: /k\n":                  convert.Config,
		"":                                            convert.Config,
		"guest: {ssh_user: u}\nrepo: {path: /r}\n# comment\n": convert.Part,
	} {
		r, diags := convert.YAML([]byte(src), "f.yaml")
		if r.Kind != want {
			t.Errorf("%q: %q, want %q: %v", src, r.Kind, want, diags)
		}
	}
	if r, diags := convert.YAML([]byte("# later\n"), "/x/profiles/f.yaml"); r.Kind != convert.Profile {
		t.Errorf("file in profiles: %q, %v", r.Kind, diags)
	}
}

func TestErrorsHaveTheirPlace(t *testing.T) {
	tests := []struct {
		name, src string
		want      []string
	}{
		{"key", "a: 1\nsecrets_bundel: x\n", []string{
			`f.yaml:1: unknown key "a"`,
			`f.yaml:2: unknown key "secrets_bundel"; did you mean "secrets_bundle"?`,
		}},
		{"plugin's key", "secrets_age_key_pth: x\n", []string{`f.yaml:1: unknown key "secrets_age_key_pth"; did you mean "secrets_age_key_path"?`}},
		{"name", "nam: x\ntemplate: t\n", []string{`f.yaml:1: the profile has no name; add name: NAME`, `f.yaml:1: unknown key "nam"; did you mean "name"?`}},
		{"no name", "template_vmid: 1\n", []string{"f.yaml:1: the profile has no name; add name: NAME"}},
		{"no template", "\n\nname: x\n", []string{`f.yaml:3: profile "x" needs template_vmid (a number above 0) or template (a name)`}},
		{"deep", "name: x\ntemplate: t\nbehavior:\n  idle_stop_minutes: 4\n  sandbox: x\n", []string{
			`f.yaml:4: unknown key "idle_stop_minutes"; did you mean "idle_stop_minutes_default"?`,
			`f.yaml:5: unknown key "sandbox"`,
		}},
		{"flat", "name: x\ntemplate: t\ncores: 4\n", []string{`f.yaml:3: unknown key "cores"; it belongs in the block resources of the block profile`}},
		{"block", "name: x\ntemplate: t\nbehavior: 4\n", []string{"f.yaml:3: behavior: must be a block of keys"}},
		{"values of the loader", "data_dir: rel\n\nagent_subnet: 10.0.0.1/8\nprovisioning_timeout: 1d\n", []string{
			`f.yaml:1: data_dir: "rel" must be an absolute path`,
			"f.yaml:3: agent_subnet: 10.0.0.1/8 has host bits set; did you mean 10.0.0.0/8?",
			`f.yaml:4: provisioning_timeout: "1d" must be a duration between 10s and 1h0m0s, such as "90s" or "10m"`,
		}},
		{"in a profile", "name: x\ntemplate: t\n# c\nnetwork:\n  # d\n  mode: natt\n", []string{`f.yaml:6: mode: "natt" is not one of off, nat, allowlist; did you mean "nat"?`}},
		{"in a part", "behavior:\n\n  on_job_end: stay\n", []string{`f.yaml:3: on_job_end: "stay" is not one of destroy, stop, keep`}},
		{"types", "data_dir: [a]\nlog_max_bytes: \"12\"\nartifact_max_bytes: 1.5\nidle_stop_enabled: \"true\"\nprovisioning_timeout: 60\ncontrol_allow_cidrs: 192.0.2.0/24\nidle_stop_cpu_threshold: .nan\n", []string{
			"f.yaml:1: data_dir: must be a single value, of type string",
			`f.yaml:2: log_max_bytes: "12" is a text, not a number; write it without quotes`,
			"f.yaml:3: artifact_max_bytes: must be a number, of type integer",
			"f.yaml:4: idle_stop_enabled: must be true or false",
			`f.yaml:5: provisioning_timeout: 60 is no duration; write a unit, such as "60s" or "60m"`,
			"f.yaml:6: control_allow_cidrs: must be a list; write [192.0.2.0/24]",
			"f.yaml:7: idle_stop_cpu_threshold: must be a number, of type number",
		}},
		{"elements", "control_allow_cidrs:\n  - [a]\nmetrics_listen: !secret x\n", []string{
			"f.yaml:2: control_allow_cidrs: has an element that is not a single value",
			"f.yaml:3: metrics_listen: the tag !secret is not understood",
		}},
		{"empty element", "control_allow_cidrs:\n  -\n", []string{`f.yaml:2: control_allow_cidrs: has an empty value; write ""`}},
		{"twice", "run_dir: /a\nrun_dir: /b\n", []string{"f.yaml:2: run_dir is there twice, first in line 1"}},
		{"plugin block", "plugin: {}\n", []string{"f.yaml:1: plugin has no YAML form; write the block into the HCL file"}},
		{"merge", "a: &a {run_dir: /x}\n<<: *a\n", []string{
			`f.yaml:1: unknown key "a"`,
			"f.yaml:2: merged keys (<<) are not converted; write the keys out",
		}},
		{"documents", "run_dir: /a\n---\ndata_dir: /b\n", []string{"f.yaml:3: a second document in one file; put it into a file of its own"}},
		{"no mapping", "- a\n", []string{"f.yaml:1: is neither a configuration nor a profile; both are keys with values"}},
		{"no YAML", "a: 1\n\tb: 2\n", []string{"f.yaml:2: is not YAML: found a tab character that violates indentation"}},
		{"itself", "behavior: &b\n  inner_sandbox_args: &l [*l]\n", []string{"f.yaml:2: inner_sandbox_args: has an element that is not a single value"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, diags := convert.YAML([]byte(tt.src), "f.yaml")
			if r.HCL != nil {
				t.Errorf("gave\n%s", r.HCL)
			}
			var got []string
			for _, line := range diags.Lines() {
				if !strings.Contains(line, "warning: ") {
					got = append(got, line)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzYAML wants an error or what holds.
func FuzzYAML(f *testing.F) {
	for _, archive := range []string{"runbook.txtar", "comments.txtar"} {
		for _, pair := range snippets(f, archive) {
			f.Add(pair[0])
		}
	}
	f.Add("a: &a [*a]\n<<: *a\n? [x]\n: y\n")
	f.Fuzz(func(t *testing.T, src string) {
		r, diags := convert.YAML([]byte(src), "f.yaml")
		if diags.HasErrors() != (r.HCL == nil) {
			t.Fatalf("errors %v with\n%q", diags, r.HCL)
		}
		if !diags.HasErrors() {
			holds(t, src, r)
		}
	})
}
