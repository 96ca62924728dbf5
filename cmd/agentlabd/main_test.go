package main

import (
	"bytes"
	"flag"
	"strings"
	"testing"
)

// Flags are written with two dashes, in the help and in what is wrong with them.
func TestFlagsHaveTwoDashes(t *testing.T) {
	for args, want := range map[string]string{
		"--tempalte /x": "flag provided but not defined: --tempalte",
		"--template":    "flag needs an argument: --template",
		"--dev=maybe":   `invalid boolean value "maybe" for --dev: parse error`,
		"start":         `"start": it takes only flags`,
	} {
		if _, err := parse(strings.Fields(args)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", args, err, want)
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
