package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/sdk/conformance"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// ruleRow is one check of plugin checks.
type ruleRow struct {
	ID          string `json:"id"`
	Kind        string `json:"kind,omitempty" doc:"empty: of every kind"`
	Level       int    `json:"level"`
	Destructive bool   `json:"destructive" doc:"it makes things on the host and removes them again"`
	About       string `json:"about"`
	Contract    string `json:"contract" doc:"the sentence that a failure breaks"`
}

func pluginChecksCommand() cli.Command {
	return cli.Command{
		Name: "plugin checks", Args: "[CHECK…]", MaxArgs: -1, Synopsis: "list what plugin test checks",
		Help: `
Lists the checks of plugin test, all of them or those that are named: what each
does, and the sentence of the contract that a failure breaks. A check is named
by its ID; what is none names all that begin with it, such as protocol, or
hypervisor.create- for those after hypervisor.create.`,
		Answers: []cli.Answer{listing[ruleRow]("checks")},
		Run: func(_ context.Context, env *cli.Env, args []string) error {
			var rows []ruleRow
			for _, r := range conformance.Catalogue() {
				if (conformance.Plan{Only: args}).Wants(r.ID) {
					rows = append(rows, ruleRow{r.ID, string(r.Kind), int(r.Level), r.Changes, r.About, r.Contract})
				}
			}
			if len(rows) == 0 {
				return fault.New(fault.NotFound, "there is no such check").WithHint("agentlab plugin checks lists them all")
			}
			return show(env, listed("checks", rows), func(w io.Writer) {
				for _, r := range rows {
					needs := ""
					if r.Destructive {
						needs = ", needs --destructive"
					}
					fmt.Fprintf(w, "%s (level %d%s)\n    %s\n    contract: %s\n", r.ID, r.Level, needs, r.About, r.Contract)
				}
			})
		},
	}
}

// pluginTest is what the flags of plugin test say.
type pluginTest struct {
	plan    conformance.Plan
	level   int
	config  string
	kinds   cli.List
	set     cli.List
	only    cli.List
	report  string
	verbose bool
}

func pluginTestCommand() cli.Command {
	t := &pluginTest{}
	return cli.Command{
		Name: "plugin test", Args: "BINARY", MinArgs: 1, MaxArgs: 1, Synopsis: "check a plugin's binary by its contract",
		Help: `
Starts a plugin's binary as a host would, again and again, and checks it by its
contract. It needs no daemon. Level 1 is what every plugin does, whatever its
kind: handshake, schema, configuration, health, end. Level 2 is what its calls
mean. Level 3 kills, stops and hurries it and takes its tools away. Each level
includes those below it. A failure says what came, what was expected, and which
sentence of the contract was broken; agentlab plugin checks lists all checks.

--config names the plugin's configuration here, not the client's: a file with a
JSON object that has what the plugin's config block would hold, - for standard
input. What is absent has its default from the schema.

Without --destructive the checks read only. With it they make things on this
host, with owner marks and names of their own, and remove them again: VMs, a
bridge with its rules, published ports. A network plugin is best tested in a
network namespace: unshare -n agentlab plugin test …

Settings fit the checks to this host:
` + settingsText() + `
The command ends with code 1 when a check failed.`,
		Answers: []cli.Answer{cli.AnswerOf[conformance.Report]("plugin-test")},
		Flags: func(fs *flag.FlagSet) {
			*t = pluginTest{}
			fs.IntVar(&t.level, "level", 2, "how far to go, a `level`")
			fs.BoolVar(&t.plan.Destructive, "destructive", false, "also make things on this host, and remove them again")
			fs.Var(&t.kinds, "kind", "test as this `kind` (default: all that it serves); may be repeated")
			fs.Var(&t.only, "only", "make this `check`, by its ID, or all that begin so; may be repeated")
			fs.Var(&t.set, "set", "a `setting`, NAME=VALUE; may be repeated")
			fs.StringVar(&t.report, "report", "", "print a report in this `format` on standard output, the lines for people on standard error")
			fs.BoolVar(&t.verbose, "verbose", false, "also print what the plugin logs")
		},
		Run: t.run,
	}
}

func settingsText() string {
	var b strings.Builder
	for _, s := range conformance.Settings() {
		fmt.Fprintf(&b, "- %s (%s): %s\n", s.Name, s.Kind, s.About)
	}
	return b.String()
}

func (t *pluginTest) run(ctx context.Context, env *cli.Env, args []string) error {
	if err := t.prepare(env, args[0]); err != nil {
		return err
	}
	asJSON := env.Global.JSON || t.report == "json"
	people := env.Out
	if asJSON || t.report != "" {
		people = env.Err
	}
	each := func(r conformance.Result) { printChecked(people, r) }
	if env.Global.JSON {
		each = nil
	}
	report, err := t.plan.Run(ctx, each)
	if n := len(report.Results); ctx.Err() != nil && n > 0 {
		printVerdict(env.Err, report)
		return fmt.Errorf("interrupted after %s, all that they made is removed: %w", several(n, "check"), err)
	}
	if err != nil {
		return err
	}
	switch {
	case asJSON:
		err = writeJSON(env.Out, report, "  ")
	case t.report == "junit":
		err = report.JUnit(env.Out)
	}
	if err != nil {
		return err
	}
	if !env.Global.JSON {
		printVerdict(people, report)
	}
	if report.Failed > 0 {
		return &exitError{code: exitFailed}
	}
	return nil
}

// prepare makes the plan of what the flags say.
func (t *pluginTest) prepare(env *cli.Env, binary string) error {
	t.plan.Path, t.plan.Level, t.plan.Only = binary, conformance.Level(t.level), t.only
	if t.level < 1 || t.level > 3 {
		return fault.New(fault.Invalid, "there is no level %d", t.level).WithHint("levels are 1, 2 and 3")
	}
	if t.report != "" && t.report != "json" && t.report != "junit" {
		return fault.New(fault.Invalid, "there is no report %q", t.report).WithHint("formats are json and junit")
	}
	for _, k := range t.kinds {
		t.plan.Kinds = append(t.plan.Kinds, plugin.Kind(k))
	}
	for _, s := range t.set {
		if err := t.plan.Set(s); err != nil {
			return err
		}
	}
	if t.verbose {
		t.plan.Log = hclog.New(&hclog.LoggerOptions{Name: "plugin", Level: hclog.Trace, Output: env.Err})
	}
	if t.config = env.Global.Config; t.config == "" {
		return nil
	}
	content, err := t.readConfig(env)
	if err != nil {
		return fault.New(fault.NotFound, "read the plugin's configuration: %w", err)
	}
	if !json.Valid(content) {
		return fault.New(fault.Invalid, "%s is not JSON", t.config).
			WithHint("write an object with what the plugin's config block would hold: {\"pool\": \"/srv\"}")
	}
	t.plan.Config = content
	return nil
}

func (t *pluginTest) readConfig(env *cli.Env) ([]byte, error) {
	if t.config == "-" {
		return io.ReadAll(env.In)
	}
	return os.ReadFile(t.config)
}

func printChecked(w io.Writer, r conformance.Result) {
	state := map[conformance.State]string{conformance.Passed: "ok", conformance.Failed: "FAILED", conformance.Skipped: "skipped"}[r.State]
	name := conformance.Rule{ID: r.ID, Kind: r.Kind}.Name()
	fmt.Fprintf(w, "%-7s %-36s %6.2fs  %s\n", state, name, r.Seconds, r.About)
	if r.Withheld() { // the last line says why, once
		return
	}
	for _, part := range []struct{ name, text string }{
		{"got:", r.Got}, {"expected:", r.Expected}, {"contract:", r.Contract}, {"needs", r.Reason},
	} {
		if part.text != "" {
			fmt.Fprintf(w, "        %-9s %s\n", part.name, oneLine(part.text))
		}
	}
}

func printVerdict(w io.Writer, r conformance.Report) {
	name := strings.TrimSpace(r.Plugin + " " + r.Version)
	if name == "" {
		name = r.Binary
	}
	fmt.Fprintf(w, "%s: %d passed, %d failed, %d skipped in %.1fs\n", name, r.Passed, r.Failed, r.Skipped, r.Seconds)
	if n := r.Withheld(); n > 0 {
		fmt.Fprintf(w, "%s would change this host: ask for them with --destructive\n", several(n, "check"))
	}
}

func pluginKinds() (out []string) {
	for _, k := range plugin.Kinds() {
		out = append(out, string(k))
	}
	return out
}

func checkIDs() (out []string) {
	for _, r := range conformance.Catalogue() {
		out = append(out, r.ID)
	}
	return out
}

func settingNames() (out []string) {
	for _, s := range conformance.Settings() {
		out = append(out, s.Name+"=")
	}
	return out
}
