package cli

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestComplete(t *testing.T) {
	kinds := map[string]Kind{
		"text": Words("one", "two", "-x", "=x", "a b", "$x"),
		"box":  Words("b1", "b2"),
		"job": func(_ context.Context, env *Env, _ []string) []Candidate {
			return []Candidate{{Text: "j" + env.Global.Socket}}
		},
		"path": func(_ context.Context, _ *Env, args []string) []Candidate {
			return []Candidate{{Text: "of-" + args[0]}}
		},
		"file":  Files,
		"lines": Words(),
	}
	for line, want := range map[string]string{
		"":                             "job logs ssh ls list rm",
		"l":                            "logs ls list",
		"job ":                         "run artifacts",
		"job --socket /s art":          "artifacts",
		"job artifacts ":               "download j",
		"--socket /s job artifacts j":  "j/s",
		"--socket=/s job artifacts j":  "j/s",
		"job artifacts download ":      "j",
		"job artifacts download j ":    "of-j",
		"job artifacts download j p ":  "of-j",
		"job artifacts download -- ":   "j",
		"job artifacts j ":             "",
		"rm b1 b":                      "b1 b2",
		"rm --task b ":                 "b1 b2",
		"rm --keep ":                   "b1 b2",
		"rm --task ":                   "one two",
		"rm --task=t":                  "--task=two",
		"rm -task=t":                   "-task=two",
		"rm --keep=":                   "",
		"rm --tail ":                   "",
		"rm --bogus ":                  "b1 b2",
		"rm --t":                       "--tail --task --timeout --token",
		"rm -- --t":                    "",
		"ssh b1 -- ":                   "",
		"help job r":                   "run",
		"job run --json --config ":     ":file",
		"job run --config=x":           ":file",
		"nothing there ":               "",
		"ssh-st":                       "",
		"job --bogus":                  "",
		"rm --help --socket /s --task": "--task",
	} {
		tr := newTrial()
		tr.app.Kinds = kinds
		words := strings.Split(line, " ")
		var got []string
		for _, c := range tr.app.Complete(t.Context(), &Env{}, words) {
			got = append(got, c.Text)
		}
		if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%q: %s", line, diff)
		}
	}
}

// bash takes "--flag=value" for three words.
func TestSuggestForBash(t *testing.T) {
	for line, want := range map[string]string{
		"rm --task = t": "two\n",
		"rm --task =":   "one\ntwo\n",
		"rm --task t":   "two\n",
		"rm = b":        "b1\n",
		"":              "",
	} {
		tr := newTrial()
		tr.app.Kinds = map[string]Kind{"text": Words("one", "two"), "box": Words("b1")}
		var out bytes.Buffer
		tr.app.Suggest(t.Context(), &Env{}, "bash", strings.Fields(line), &out)
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("%q: %s", line, diff)
		}
	}
}
