package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/config"
)

// What is wrong is said in words for people, with the type that is expected.
func TestMistakesInOurWords(t *testing.T) {
	in := func(body string) string { return "profile \"p\" {\n  template = \"x\"\n" + body + "\n}\n" }
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"list for text":    {"profile \"p\" {\n  template = []\n}\n", []string{`f:2: template: must be a text, not a list; write template = "…"`}},
		"text for number":  {in("resources {\n cores = \"many\"\n}"), []string{"f:4: cores: must be a whole number, not a text"}},
		"fraction":         {in("resources {\n cores = 1.5\n}"), []string{"f:4: cores: must be a whole number, not a number with a fraction"}},
		"text for list":    {in("network {\n allow = \"x\"\n}"), []string{`f:4: allow: must be a list of texts, not a text; write allow = ["…", "…"]`}},
		"no quotes":        {in("secrets_bundle = main"), []string{"f:3: secrets_bundle: main is not in quotes; put texts in quotes; there are no variables"}},
		"function":         {in("secrets_bundle = upper(\"x\")"), []string{"f:3: secrets_bundle: there are no functions here; write the value itself"}},
		"two words":        {in("secrets_bundle = a b"), []string{"f:3: something follows the value; put texts in quotes, and each setting on a line of its own"}},
		"one line":         {in("network { mode = \"nat\" allow = [] }"), []string{"f:3: a block on one line holds one setting at most; put each setting on a line of its own"}},
		"block in a line":  {"profile \"p\" { network { mode = \"nat\" } }\n", []string{"f:1: a block inside a block needs lines of its own; begin a new line after the { of the outer one, and before its }"}},
		"label in a line":  {in("network { mode \"nat\" {} }"), []string{"f:3: a block inside a block needs lines of its own; begin a new line after the { of the outer one, and before its }"}},
		"no setting":       {in("network { mode nat }"), []string{"f:3: this is not a setting; write name = value"}},
		"twice":            {in("template = \"y\""), []string{"f:3: template is set twice; the first is at line 2"}},
		"second block":     {in("network {}\nnetwork {}"), []string{"f:4: a second block network; the first is at line 3"}},
		"colon":            {in("mode: x"), []string{"f:3: a setting is written with =, not with :; write name = value"}},
		"open text":        {in("secrets_bundle = \"x"), []string{`f:3: a text is not closed: there is no second " on this line; close it with "`}},
		"open block":       {"profile \"p\" {\n", []string{"f:1: a block is not closed; write } at its end"}},
		"no name":          {"profile {\n}\n", []string{`f:1: profile needs one name; write profile "…" { … }`}},
		"too many names":   {"profile \"a\" \"b\" {\n}\n", []string{`f:1: profile needs one name; write profile "…" { … }`}},
		"a missing value":  {in("secrets_bundle ="), []string{"f:3: a value is missing, or cannot be read; write name = value, with texts in quotes"}},
		"nothing is wrong": {in(""), nil},
	} {
		_, diags := config.ParseProfiles([]byte(c.text), "f")
		if diff := cmp.Diff(c.want, diags.Lines()); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	_, diags := config.Parse([]byte("idle_stop_enabled = \"maybe\"\nplugin \"x\" {}\nlog_max_bytes = 1.5\n"), "f")
	want := []string{
		"f:1: idle_stop_enabled: must be true or false, not a text", `f:2: plugin needs two names; write plugin "…" "…" { … }`,
		"f:3: log_max_bytes: must be a whole number, not a number with a fraction",
		"f:1: warning: idle_stop_enabled: has no effect in this version",
	}
	if diff := cmp.Diff(want, diags.Lines()); diff != "" {
		t.Error(diff)
	}
}
