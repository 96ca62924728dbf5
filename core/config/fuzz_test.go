package config

import "testing"

// FuzzParse wants no panic, and a value or an error whatever the text is.
func FuzzParse(f *testing.F) {
	f.Add("data_dir = \"/x\"\nplugin \"network\" \"n\" {\n  config {\n    a = [\"b\"]\n  }\n}\n")
	f.Add("plugin {}\nplugin \"a\" {}\nagent_subnet = 1\n")
	f.Add("profile \"p\" {\n  template = \"t\"\n  network {\n    mode = \"off\"\n  }\n}\nprofile \"q\" {\n")
	f.Add("data_dir = null\nlog_max_bytes = 1e999\ncontrol_allow_cidrs = [null]\nidle_stop_enabled = foo(1)\n")
	f.Fuzz(func(t *testing.T, text string) {
		cfg, diags := Parse([]byte(text), "f.hcl")
		if cfg == nil && !diags.HasErrors() {
			t.Error("neither a configuration nor an error")
		}
		_ = diags.Error()
		if cfg != nil {
			if _, changed := TakeOver(cfg, cfg); len(changed) > 0 {
				t.Errorf("differs from itself in %v", changed)
			}
		}
		profiles, diags := ParseProfiles([]byte(text), "f.hcl")
		for _, p := range profiles {
			if diags.errorsIn(p.Range) {
				t.Errorf("profile %q was taken with %v", p.Name, diags)
			}
		}
	})
}
