package cli

import (
	"bytes"
	"context"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/sdk/fault"
)

// call is what a command was run with.
type call struct {
	Name   string
	Args   []string
	Rest   []string
	Global Global
	Task   string
	Tail   int
	Keep   bool
}

// trial is a program that only notes what it was asked for.
type trial struct {
	app *App
	got *call
	err error // that Explain saw
}

func newTrial() *trial {
	t := &trial{}
	add := func(c Command) {
		c.Synopsis = "do " + c.Name
		var task string
		var tail int
		var keep bool
		c.Flags = func(fs *flag.FlagSet) {
			fs.StringVar(&task, "task", "", "the `text`")
			fs.IntVar(&tail, "tail", 7, "`lines`")
			fs.BoolVar(&keep, "keep", false, "keep it")
		}
		c.Run = func(_ context.Context, env *Env, args []string) error {
			t.got = &call{c.Name, args, env.Rest, env.Global, task, tail, keep}
			return nil
		}
		t.app.Commands = append(t.app.Commands, c)
	}
	t.app = &App{Name: "lab", About: "A lab.", Version: "1.2", Explain: func(_ *Env, err error) int { t.err = err; return 2 }}
	t.app.Headings = []string{"Work", "Boxes"}
	t.app.Commands = []Command{{Name: "job", Heading: "Work", Synopsis: "do jobs"}}
	add(Command{Name: "job run", MaxArgs: 0})
	add(Command{Name: "job artifacts", Args: "JOB", MinArgs: 1, MaxArgs: 1})
	add(Command{Name: "job artifacts download", Args: "JOB [PATH…]", MinArgs: 1, MaxArgs: -1})
	add(Command{Name: "logs", Args: "BOX", MinArgs: 1, MaxArgs: 1})
	add(Command{Name: "ssh", Args: "BOX", MinArgs: 1, MaxArgs: 1, Rest: true})
	add(Command{Name: "ls", Heading: "Boxes", MaxArgs: 0})
	add(Command{Name: "list", ShortFor: "ls", MaxArgs: 0})
	add(Command{Name: "rm", Heading: "Boxes", Args: "BOX…", MinArgs: 1, MaxArgs: -1})
	add(Command{Name: "ssh-stream", Args: "BOX", MinArgs: 1, MaxArgs: 1, Hidden: true})
	return t
}

func (t *trial) run(args ...string) (code int, out, errOut string) {
	var o, e bytes.Buffer
	code = t.app.Main(context.Background(), args, &Env{Out: &o, Err: &e})
	return code, o.String(), e.String()
}

func TestParse(t *testing.T) {
	for line, want := range map[string]call{
		"logs 1042":                           {Name: "logs", Args: []string{"1042"}},
		"logs 1042 --tail 200":                {Name: "logs", Args: []string{"1042"}, Tail: 200},
		"logs --tail=200 1042":                {Name: "logs", Args: []string{"1042"}, Tail: 200},
		"logs -tail 200 1042":                 {Name: "logs", Args: []string{"1042"}, Tail: 200},
		"--json logs 1042":                    {Name: "logs", Args: []string{"1042"}, Global: Global{JSON: true}},
		"logs 1042 --json":                    {Name: "logs", Args: []string{"1042"}, Global: Global{JSON: true}},
		"--socket job logs 1":                 {Name: "logs", Args: []string{"1"}, Global: Global{Socket: "job"}},
		"--socket=/s logs --timeout 5 1":      {Name: "logs", Args: []string{"1"}, Global: Global{Socket: "/s", Timeout: Duration(5 * time.Minute)}},
		"job --json run --keep":               {Name: "job run", Keep: true, Global: Global{JSON: true}},
		"job run --task --json":               {Name: "job run", Task: "--json"},
		"job run --keep=false --task=a=b":     {Name: "job run", Task: "a=b"},
		"job artifacts download":              {},
		"job artifacts j":                     {Name: "job artifacts", Args: []string{"j"}},
		"job artifacts download j p q":        {Name: "job artifacts download", Args: []string{"j", "p", "q"}},
		"job --token t artifacts download j":  {Name: "job artifacts download", Args: []string{"j"}, Global: Global{Token: "t"}},
		"job artifacts download j --keep p q": {Name: "job artifacts download", Args: []string{"j", "p", "q"}, Keep: true},
		"rm a b -- --keep":                    {Name: "rm", Args: []string{"a", "b", "--keep"}},
		"rm -":                                {Name: "rm", Args: []string{"-"}},
		"ssh box -- ls --help --json":         {Name: "ssh", Args: []string{"box"}, Rest: []string{"ls", "--help", "--json"}},
		"ssh box --keep -- -- x":              {Name: "ssh", Args: []string{"box"}, Keep: true, Rest: []string{"--", "x"}},
		"ssh-stream box":                      {Name: "ssh-stream", Args: []string{"box"}},
	} {
		tr := newTrial()
		code, _, _ := tr.run(strings.Fields(line)...)
		if want.Name == "" {
			if code != 2 || tr.got != nil {
				t.Errorf("%s: code %d, ran %+v; want an error", line, code, tr.got)
			}
			continue
		}
		if want.Tail == 0 {
			want.Tail = 7
		}
		if tr.got == nil || code != 0 {
			t.Errorf("%s: code %d, %v", line, code, tr.err)
			continue
		}
		if diff := cmp.Diff(want, *tr.got); diff != "" {
			t.Errorf("%s: %s", line, diff)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for _, tc := range []struct{ line, message, hint string }{
		{"jbo", `there is no command "lab jbo"`, `did you mean "lab job"?`},
		{"job rnu", `there is no command "lab job rnu"`, `did you mean "lab job run"?`},
		{"job art", `there is no command "lab job art"`, `did you mean "lab job artifacts"?`},
		{"xx", `there is no command "lab xx"`, "lab --help lists what there is"},
		{"foo", `there is no command "lab foo"`, "lab --help lists what there is"},
		{"ssh-strem box", `there is no command "lab ssh-strem"`, "lab --help lists what there is"},
		{"job destroy", `there is no command "lab job destroy"`, "lab job --help lists what there is"},
		{"--tail 5 logs x", "--tail: unknown flag before a command", "lab --help lists the commands and the flags that may stand before them"},
		{"logs x --tial 5", "lab logs: unknown flag --tial", "did you mean --tail?"},
		{"logs x --zzz", "lab logs: unknown flag --zzz", "lab logs --help lists the flags"},
		{"logs x --tail", "lab logs: --tail needs a value", "lab logs --help lists the flags"},
		{"logs x --tail many", `lab logs: --tail: "many" is not a usable value`, "lab logs --help lists the flags"},
		{"logs x --keep=7", `lab logs: --keep: "7" is not a usable value`, "lab logs --help lists the flags"},
		{"logs x --timeout never", `lab logs: --timeout: "never" is not a duration such as 30m or 2h, or a number of minutes`, "lab logs --help lists the flags"},
		{"logs", "lab logs: missing argument", "usage: lab logs [flags] BOX"},
		{"logs a b", `lab logs: unexpected argument "b"`, "usage: lab logs [flags] BOX"},
		{"ls a", `lab ls: unexpected argument "a"`, "usage: lab ls [flags]"},
		{"ls -- a", `lab ls: unexpected argument "a"`, "usage: lab ls [flags]"},
		{"ssh box ls", `lab ssh: unexpected argument "ls"`, "usage: lab ssh [flags] BOX"},
		{"--socket", "lab: --socket needs a value", "lab --help lists the flags"},
	} {
		tr := newTrial()
		code, out, _ := tr.run(strings.Fields(tc.line)...)
		if code != 2 || out != "" || tr.got != nil || tr.err == nil {
			t.Errorf("%s: code %d, stdout %q, ran %+v", tc.line, code, out, tr.got)
			continue
		}
		if fault.ClassOf(tr.err) != fault.Invalid || tr.err.Error() != tc.message || fault.HintOf(tr.err) != tc.hint {
			t.Errorf("%s: %s %q, hint %q", tc.line, fault.ClassOf(tr.err), tr.err, fault.HintOf(tr.err))
		}
	}
}

// A command line that cannot be read still tells how its error is wanted.
func TestErrorsKnowTheirForm(t *testing.T) {
	for line, want := range map[string]bool{
		"logs x --bogus --json": true, "--json jbo": true, "jbo --json": true, "job --json": true,
		"logs x --bogus": false, "jbo -- --json": false,
	} {
		tr := newTrial()
		var got *bool
		tr.app.Explain = func(env *Env, _ error) int { got = &env.Global.JSON; return 2 }
		if tr.run(strings.Fields(line)...); got == nil || *got != want {
			t.Errorf("%s: JSON is not %v", line, want)
		}
	}
}

func TestHelp(t *testing.T) {
	for line, want := range map[string]string{
		"--help":                "Usage: lab COMMAND [flags]\n\nA lab.\n\nWork:\n  job run                 do job run\n  job artifacts           do job artifacts\n  job artifacts download  do job artifacts download\n\nBoxes:\n  ls, list                do ls\n  rm                      do rm\n\nCommands:\n  logs                    do logs\n  ssh                     do ssh\n\nFlags",
		"help":                  "Usage: lab COMMAND [flags]\n",
		"-h":                    "Usage: lab COMMAND [flags]\n",
		"help job":              "Usage: lab job COMMAND [flags]\n\nDo jobs.\n\nCommands:\n  job run                 do job run\n  job artifacts           do job artifacts\n",
		"job run --help":        "Usage: lab job run [flags]\n\nDo job run.\n\nFlags:\n  --keep        keep it\n  --tail LINES  lines (default: 7)\n",
		"--help job run":        "Usage: lab job run [flags]\n",
		"logs --help":           "Usage: lab logs [flags] BOX\n",
		"job artifacts --help":  "Commands:\n  job artifacts download  do job artifacts download\n",
		"ssh --help -- ls":      "Usage: lab ssh [flags] BOX\n",
		"ssh-stream box --help": "Usage: lab ssh-stream [flags] BOX\n",
		"--version":             "lab 1.2\n",
	} {
		tr := newTrial()
		code, out, errOut := tr.run(strings.Fields(line)...)
		if code != 0 || errOut != "" || tr.got != nil || !strings.Contains(out, want) {
			t.Errorf("%s: code %d, ran %+v, stderr %q, stdout:\n%s", line, code, tr.got, errOut, out)
		}
		if strings.Contains(out, "do ssh-stream") {
			t.Errorf("%s lists what is hidden", line)
		}
	}
	for _, line := range []string{"", "job"} {
		code, out, errOut := newTrial().run(strings.Fields(line)...)
		if code != 2 || out != "" || !strings.Contains(errOut, "Commands:") {
			t.Errorf("%q alone: code %d, stdout %q, stderr %q", line, code, out, errOut)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30m": 30 * time.Minute, "2h": 2 * time.Hour, "45": 45 * time.Minute, "1h30m": 90 * time.Minute, "90s": 90 * time.Second,
		"": 0, "0": 0, "-5": 0, "-2h": 0, "x": 0, "10d": 0, "999ms": 0, "9000h": 0, "99999999999999999999": 0, "1e3": 0,
	} {
		var d Duration
		err := d.Set(text)
		if (err == nil) != (want != 0) || time.Duration(d) != want {
			t.Errorf("%q: %s, %v; want %s", text, time.Duration(d), err, want)
		}
	}
}
