package main

import (
	"bytes"
	"flag"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Flags are written with two dashes, in the help and in what is wrong with them.
func TestFlagsHaveTwoDashes(t *testing.T) {
	for args, want := range map[string]string{
		"--tempalte /x": "unknown flag --tempalte; did you mean --template?",
		"--devv":        "unknown flag --devv; did you mean --dev?",
		"-zzz":          "unknown flag --zzz",
		"--template":    "flag needs an argument: --template",
		"--dev=maybe":   `invalid boolean value "maybe" for --dev: parse error`,
		"start":         `"start": it takes only flags`,
	} {
		_, err := parse(strings.Fields(args))
		if err == nil {
			t.Errorf("%s: no error, want %s", args, want)
			continue
		}
		got := err.Error()
		if hint := fault.HintOf(err); hint != "" {
			got += "; " + hint
		}
		if got != want {
			t.Errorf("%s: %s, want %s", args, got, want)
		}
	}
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.String("dev-dir", "/d", "a `directory`")
	fs.Bool("dev", false, "throw-away")
	var out bytes.Buffer
	usage(&out, fs)
	for _, want := range []string{"  --dev-dir DIRECTORY        a directory (default: /d)\n", "  --dev                      throw-away\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
}
