package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
)

var update = flag.Bool("update", false, "write golden files anew: the scripts' outputs and what docs has of the command table")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"agentlab": main, "ssh": fakeSSH})
}

// TestScripts runs whole command lines against a daemon that answers from the
// script's own files.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			f, err := startFake(env.WorkDir)
			if err != nil {
				return err
			}
			env.Defer(f.close)
			env.Values["fake"] = f
			env.Setenv("AGENTLAB_SOCKET", f.socket)
			return setup(env)
		},
		Cmds: commands,
	})
}

func setup(env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, ".home")
	env.Setenv("HOME", home)
	env.Setenv("TZ", "UTC")
	env.Setenv("GORACE", "atexit_sleep_ms=0") // else each command of a race build ends a second late
	env.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(home, "gitconfig"))
	env.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(home, "gitconfig"), []byte("[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n"), 0o600)
}

var commands = map[string]func(*testscript.TestScript, bool, []string){
	"code":      cmdCode,
	"asked":     cmdAsked,
	"interrupt": cmdInterrupt,
	"tty":       cmdTTY,
	"find":      cmdFind,
}

// cmdCode runs a command line that must end with the given code.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command [arg…]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := err.(*exec.ExitError); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// cmdFind puts a JSON string field of a file, or of the output, into a variable.
func cmdFind(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: find VARIABLE field file")
	}
	_, rest, ok := strings.Cut(ts.ReadFile(args[2]), `"`+args[1]+`": "`)
	value, _, _ := strings.Cut(rest, `"`)
	if !ok || value == "" {
		ts.Fatalf("%s has no field %q", args[2], args[1])
	}
	ts.Setenv(args[0], value)
}

// free are kinds of words that only who writes them knows.
var free = map[string]bool{
	"": true, "text": true, "commit": true, "duration": true, "lines": true, "name": true, "number": true,
	"port": true, "time": true, "url": true, "user": true,
}

// TestCommandTable holds each command to what readers of its help rely on.
func TestCommandTable(t *testing.T) {
	seen := map[string]bool{}
	a := app()
	for _, c := range a.Commands {
		if seen[c.Name] {
			t.Errorf("%s is there twice", c.Name)
		}
		seen[c.Name] = true
		if c.Synopsis == "" || strings.HasSuffix(c.Synopsis, ".") || strings.ToLower(c.Synopsis[:1]) != c.Synopsis[:1] {
			t.Errorf("%s: synopsis %q", c.Name, c.Synopsis)
		}
		if c.Run != nil && !c.Hidden && c.Help == "" {
			t.Errorf("%s has no help", c.Name)
		}
		if c.Run != nil && !c.Hidden && !c.Rest && len(c.Answers) == 0 {
			t.Errorf("%s does not say what --json prints: Answers", c.Name)
		}
		if !strings.Contains(c.Name, " ") && c.ShortFor == "" && !c.Hidden && !slices.Contains(headings, c.Heading) {
			t.Errorf("%s has no heading in the help: Heading", c.Name)
		}
		if c.ShortFor != "" && !seen[c.ShortFor] {
			t.Errorf("%s is short for %s, which stands nowhere before it", c.Name, c.ShortFor)
		}
		if (c.Args == "") != (c.MaxArgs == 0) || (c.MaxArgs >= 0 && c.MinArgs > c.MaxArgs) {
			t.Errorf("%s: arguments %q, from %d to %d", c.Name, c.Args, c.MinArgs, c.MaxArgs)
		}
		for _, word := range strings.FieldsFunc(strings.ToLower(c.Args), func(r rune) bool { return !unicode.IsLetter(r) }) {
			if a.Kinds[word] == nil && !c.Rest && !free[word] {
				t.Errorf("%s: nothing completes a %s: kinds, or here the list of what is free", c.Name, word)
			}
		}
		if c.Flags == nil {
			continue
		}
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		c.Flags(fs)
		fs.VisitAll(func(f *flag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: usage %q", c.Name, f.Name, f.Usage)
			}
			if kind, _ := flag.UnquoteUsage(f); a.Kinds[kind] == nil && !free[kind] {
				t.Errorf("%s --%s: nothing completes a %s: kinds, or here the list of what is free", c.Name, f.Name, kind)
			}
		})
	}
	for _, name := range a.Later {
		if seen[name] {
			t.Errorf("%s is there, and said not to be: later", name)
		}
	}
	for i := range seen {
		if group, _, ok := strings.Cut(i, " "); ok && !seen[group] {
			t.Errorf("%s has no group %s", i, group)
		}
	}
}

// What people are shown fits a terminal of 80 columns.
func TestHelpFits(t *testing.T) {
	for _, c := range append(app().Commands, cli.Command{}) {
		var out bytes.Buffer
		app().Main(t.Context(), append(strings.Fields(c.Name), "--help"), &cli.Env{Out: &out})
		if out.Len() == 0 {
			t.Errorf("%s has no help", c.Name)
		}
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 80 {
				t.Errorf("%s --help has a line of %d columns: %s", c.Name, n, line)
			}
		}
	}
}
