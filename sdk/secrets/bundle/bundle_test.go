package bundle_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secrets/bundle"
)

const whole = `
version: 1
metadata: {owner: ops, rotated: 2026-01-30, n: 3}
git:
  token: ghp_tokentokentoken
  username: bot
  ssh_private_key: |
    -----BEGIN OPENSSH PRIVATE KEY-----
    AAAA
    -----END OPENSSH PRIVATE KEY-----
env:
  OPENAI_API_KEY: sk-value-value
  PORT: 0080
  FLAG: yes
claude:
  settings: {permissions: {allow: [a, "b"]}, n: 1.5, t: true}
ssh:
  keys:
    anna: {key: AAAAC3, type: ssh-ed25519, comment: anna@example}
tailscale:
  authkey: tskey-auth-xxxxx
  tags: ["tag:sandbox"]
`

func TestParseWhole(t *testing.T) {
	doc, err := bundle.Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(doc.Reveal()), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"OPENAI_API_KEY": "sk-value-value", "PORT": "0080", "FLAG": "yes"}
	if diff := cmp.Diff(want, got["env"]); diff != "" {
		t.Errorf("env (-want +got):\n%s", diff)
	}
	settings := got["claude"].(map[string]any)["settings"]
	wantSettings := map[string]any{
		"permissions": map[string]any{"allow": []any{"a", "b"}}, "n": 1.5, "t": true,
	}
	if diff := cmp.Diff(wantSettings, settings); diff != "" {
		t.Errorf("settings (-want +got):\n%s", diff)
	}
	p, err := bundle.Inspect([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	wantKeys := []string{
		"claude.settings", "env.FLAG", "env.OPENAI_API_KEY", "env.PORT", "git.ssh_private_key", "git.token",
		"git.username", "metadata", "ssh.keys.anna", "tailscale.authkey", "tailscale.tags", "version",
	}
	if diff := cmp.Diff(wantKeys, p.Keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	if len(p.Warnings) != 2 {
		t.Errorf("warnings = %q, want one for each value too short to redact", p.Warnings)
	}
}

// The JSON that Parse gives is itself a bundle, and JSON's own habits (tabs,
// surrogate pairs) are understood.
func TestParseJSON(t *testing.T) {
	src := "{\n\t\"version\": 1,\n\t\"env\": {\"SMILE\": \"\\ud83d\\ude00 value\", \"N\": 7}\n}"
	doc, err := bundle.Parse([]byte(src))
	if err != nil {
		t.Fatal(err)
	}
	again, err := bundle.Parse([]byte(doc.Reveal()))
	if err != nil {
		t.Fatal(err)
	}
	if doc != again {
		t.Error("a second Parse changed the document")
	}
	if !strings.Contains(doc.Reveal(), "😀 value") || !strings.Contains(doc.Reveal(), `"N":"7"`) {
		t.Errorf("document = %s", doc.Reveal())
	}
}

func TestParseRefuses(t *testing.T) {
	const value = "hunter2hunter2"
	tests := []struct{ name, src, want string }{
		{"empty", "", "empty"},
		{"only a comment", "# x\n", "empty"},
		{"no version", "env: {A: " + value + "}", "version is missing"},
		{"other version", "version: 2", "version (line 1): must be 1"},
		{"unknown key", "version: 1\ngit:\n  tokn: " + value, "git.tokn (line 3): unknown key; known here: known_hosts"},
		{"unknown top key in JSON", "{\"version\":1,\n\"foo\":\"" + value + "\"}", "foo (line 1): unknown key"},
		{"value in a key's place", "version: 1\nenv:\n  \"" + value + " x\": y", "env.? (line 3): a name with ' ' as character 15 is not the name"},
		{"digit first", "version: 1\nenv:\n  1ABC: " + value, `env.1ABC (line 3): "1ABC" is not the name of an environment variable`},
		{"long name", "version: 1\nenv:\n  " + strings.Repeat("A", 200) + ": " + value, "env.? (line 3): a name of 200 characters is not"},
		{"twice", "version: 1\nenv:\n  A: " + value + "\n  A: b", "env.A (line 4): is there twice"},
		{"twice in JSON", `{"version":1,"env":{"A":"` + value + `","A":"b"}}`, "env.A (line 1): is there twice"},
		{"null", "version: 1\nenv:\n  A:", "env.A (line 3): has no value"},
		{"list for text", "version: 1\ngit: {token: [" + value + "]}", "git.token (line 2): must be text"},
		{"text for mapping", "version: 1\ngit: " + value, "git (line 2): must be a mapping"},
		{"not YAML", "version: 1\n\tenv: " + value, "neither YAML nor JSON (line 2)"},
		{"alias", "version: 1\nenv:\n  A: &x " + value + "\n  B: *x", "env.A (line 3): anchors"},
		{"unknown alias", "version: 1\nenv: {A: *" + value + "}", "neither YAML nor JSON"},
		{"two documents", "version: 1\n---\nversion: 1\n", "more than one document"},
		{"settings twice", "version: 1\nclaude: {settings: {}, settings_json: '{}'}", "one of them is enough"},
		{"settings not JSON", "version: 1\nclaude: {settings_json: " + value + "}", "claude.settings_json: must be"},
		{"path in a key name", "version: 1\nssh: {keys: {../x: {key: a}}}", "ssh.keys.? (line 2): a name with '/' as character 3 is not a name"},
		{"key without key", "version: 1\nssh: {keys: {a: {type: b}}}", "ssh.keys.a (line 2): key is missing"},
		{"scalar", value, "bundle (line 1): must be a mapping"},
		{"too large", "version: 1\n#" + strings.Repeat("x", bundle.MaxSize), "larger than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := bundle.Validate([]byte(tt.src))
			if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("err = %v (class %s), want Invalid with %q", err, fault.ClassOf(err), tt.want)
			}
			if strings.Contains(err.Error(), value) {
				t.Errorf("the error tells a value: %v", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(`{"version":1,"claude":{"settings":{"a":[null,1e400,{}]}}}`))
	f.Add([]byte("version: 1\nmetadata: {? [a] : b}"))
	f.Add([]byte("version: 1\nmetadata: {a: .inf, b: 0x10, c: !!binary aGk=}"))
	f.Fuzz(func(t *testing.T, src []byte) {
		doc, err := bundle.Parse(src)
		if err != nil {
			if !errors.Is(err, fault.Invalid) {
				t.Fatalf("class of %v", err)
			}
			return
		}
		again, err := bundle.Parse([]byte(doc.Reveal()))
		if err != nil {
			t.Fatalf("the answer is not a bundle: %v", err)
		}
		if doc != again {
			t.Fatalf("a second Parse changed the document:\n%s\n%s", doc.Reveal(), again.Reveal())
		}
	})
}
