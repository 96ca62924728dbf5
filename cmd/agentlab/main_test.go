package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write golden files anew: the scripts' outputs and docs/cli.md")

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

func TestReference(t *testing.T) {
	const path = "../../docs/cli.md"
	var got bytes.Buffer
	app().Markdown(&got)
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("docs/cli.md is old; run: go test ./cmd/agentlab -run TestReference -update\n%s", diff)
	}
}

// TestCommandTable holds each command to what readers of its help rely on.
func TestCommandTable(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range app().Commands {
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
		if (c.Args == "") != (c.MaxArgs == 0) || (c.MaxArgs >= 0 && c.MinArgs > c.MaxArgs) {
			t.Errorf("%s: arguments %q, from %d to %d", c.Name, c.Args, c.MinArgs, c.MaxArgs)
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
		})
	}
	for i := range seen {
		if group, _, ok := strings.Cut(i, " "); ok && !seen[group] {
			t.Errorf("%s has no group %s", i, group)
		}
	}
}
