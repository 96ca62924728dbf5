package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/sdk/fault"
)

// schemas reads docs/schema. Here an answer must not have more than is described.
type schemas map[string]*jsonschema.Schema

func readSchemas(t *testing.T) schemas {
	t.Helper()
	all := schemas{}
	for _, a := range allAnswers() {
		b, err := os.ReadFile(docs + "/schema/" + a.Name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		closeObjects(doc)
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		if err := c.AddResource(a.Name, doc); err != nil {
			t.Fatal(err)
		}
		if all[a.Name], err = c.Compile(a.Name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func closeObjects(v any) {
	m, _ := v.(map[string]any)
	if _, ok := m["properties"]; ok {
		m["additionalProperties"] = false
	}
	for _, below := range m {
		closeObjects(below)
	}
}

// check validates each value in text, of which there must be one, or some lines.
func (s schemas) check(t *testing.T, name, text string, lines bool) {
	t.Helper()
	n := 0
	for dec := json.NewDecoder(strings.NewReader(text)); dec.More(); n++ {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			t.Fatalf("%s: %v in %s", name, err, text)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err == nil {
			err = s[name].Validate(v)
		}
		if err != nil {
			t.Errorf("%#v\n%s", err, raw)
		}
		if lines && bytes.ContainsRune(raw, '\n') {
			t.Errorf("%s takes more than a line: %s", name, raw)
		}
	}
	if n == 0 || (n > 1 && !lines) {
		t.Errorf("%d values of %s: %s", n, name, text)
	}
}

// answered are command lines with an answer of each kind, in an order that works;
// $JOB, $CONFIG, $YAML and $REPO are put in.
var answered = []struct{ line, answer string }{
	{"version", "version"},
	{"completion bash", "completion"},
	{"status", "status"},
	{"plugin list", "plugins"},
	{"config check $CONFIG", "config-check"},
	{"config convert $YAML", "config-convert"},
	{"config schema", "config-schema"},
	{"plugin info hypervisor", "plugin"},
	{"plugin checks", "checks"},
	{"plugin new secrets acme --dir $NEW/acme --replace ../..", "plugin-new"},
	{"plugin test $PLUGIN --config $WORLD --kind secrets --only secrets", "plugin-test"},
	{"plugin info hypervisor --crash last", "crash"},
	{"plugin restart hypervisor", "plugin"},
	{"plugin lock --file $CONFIG", "plugin-lock"},
	{"plugin docs $PLUGIN", "plugin-docs"},
	{"profile list", "profiles"},
	{"profile check", "profile-checks"},
	{"template list", "templates"},
	{"template validate", "templates"},
	{"template warm --profile plain", "template"},
	{"template build", "template-build"},
	{"job validate --repo $REPO --profile sim --task t", "job-plan"},
	{"sandbox new --profile plain --name fox", "sandbox"},
	{"sandbox list", "sandboxes"},
	{"sandbox show fox", "sandbox"},
	{"job run --repo $REPO --profile sim --task sim:artifact=a.txt:9", "job"},
	{"job run --detach --repo $REPO --profile sim --task sim:hang", "job"},
	{"operation list", "operations"},
	{"operation show $OP", "operation"},
	{"job cancel $JOB", "accepted"},
	{"job run --detach --repo $REPO --profile sim --task sim:hang", "job"},
	{"operation cancel $OP", "accepted"},
	{"job run --detach --repo $REPO --profile sim --task sim:hang", "job"},
	{"operation cancel --wait $OP", "operation"},
	{"events --tail 20", "event"},
	{"job list", "jobs"},
	{"job show $JOB", "job"},
	{"job logs $JOB", "job-log"},
	{"job artifacts $JOB", "artifacts"},
	{"job artifacts download $JOB --output $REPO/got", "download"},
	{"sandbox list --all", "sandboxes"},
	{"logs fox", "sandbox-log"},
	{"sandbox destroy --force fox", "destroyed"},
	{"logs -f fox", "event"},
	{"doctor --output $REPO/report.tar.gz", "doctor"},
	{"status", "status"},
}

// TestAnswersAreAsDescribed runs every command of the table with --json and
// compares what it prints with the schemas.
func TestAnswersAreAsDescribed(t *testing.T) {
	t.Parallel()
	all := readSchemas(t)
	stubBuilder(t)
	sim := testkit.NewSim(t)
	sim.Start(t)
	crashAll(t, sim)
	covered := map[string]bool{}
	repo, job, op := newRepo(t), "", ""
	world := filepath.Join(t.TempDir(), "world.json")
	if err := os.WriteFile(world, []byte(`{"world":"`+filepath.Join(sim.Dir, "world")+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	yaml := filepath.Join(t.TempDir(), "profile.yaml")
	if err := os.WriteFile(yaml, []byte("name: p\ntemplate_vmid: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range answered {
		line := os.Expand(step.line, func(name string) string {
			return map[string]string{"WORLD": world, "NEW": filepath.Dir(world), "REPO": repo, "JOB": job, "OP": op, "CONFIG": sim.ConfigFile(), "PLUGIN": sim.Plugin, "YAML": yaml}[name]
		})
		got := runCLI(sim.Socket(), line)
		if got.Code != 0 {
			t.Fatalf("%s ended with %d: %s", line, got.Code, got.Stderr)
		}
		covered[all.of(t, step.line, step.answer, got.Stdout)] = true
		if id := regexp.MustCompile(`"id": "(job_\w+)"`).FindStringSubmatch(got.Stdout); strings.HasPrefix(line, "job run") && id != nil {
			job = id[1]
		}
		if strings.HasPrefix(line, "job run --detach") {
			op = runOf(t, sim, job)
		}
	}
	got := runCLI(sim.Socket(), "job logs -f "+job)
	all.check(t, "job-log", got.Stdout, false)
	covered[all.fetch(t, repo)] = true
	for _, c := range app().Commands {
		for _, a := range c.Answers {
			if what := c.Name + " " + a.Name; c.ShortFor == "" && !covered[what] {
				t.Errorf("no line here has the answer %s of agentlab %s", a.Name, c.Name)
			}
		}
	}
}

// crashAll gives every plugin a crash to report about.
func crashAll(t *testing.T, sim *testkit.Sim) {
	t.Helper()
	sim.KillPlugins(func(n int) (all []int) {
		for i := range n {
			all = append(all, i)
		}
		return all
	})
	testkit.Eventually(t, 20*time.Second, "the plugins are back", func() bool {
		list, err := sim.Client.Plugins(t.Context())
		for _, p := range list {
			info, err := sim.Client.Plugin(t.Context(), p.Kind)
			if err != nil || info.State != "ready" || len(info.Crashes) == 0 {
				return false
			}
		}
		return err == nil
	})
}

// runOf waits for the operation that runs the job.
func runOf(t *testing.T, sim *testkit.Sim, job string) (id string) {
	t.Helper()
	testkit.Eventually(t, 20*time.Second, "the job runs", func() bool {
		ops, err := sim.Client.Operations(t.Context(), client.OperationQuery{JobID: job, Open: true})
		if err == nil && len(ops) > 0 && ops[0].Kind == string(lab.OpRunJob) {
			id = ops[0].ID
		}
		return id != ""
	})
	return id
}

// of checks an answer of a command line and tells which of which command it is.
func (s schemas) of(t *testing.T, line, answer, text string) string {
	t.Helper()
	inv := ""
	for _, c := range app().Commands {
		if strings.HasPrefix(line+" ", c.Name+" ") && len(c.Name) > len(inv) {
			inv = c.Name
		}
	}
	for _, c := range app().Commands {
		for _, a := range c.Answers {
			if c.Name == inv && a.Name == answer {
				s.check(t, answer, text, a.Lines)
				return inv + " " + answer
			}
		}
	}
	t.Fatalf("agentlab %s does not say that it answers %s", inv, answer)
	return ""
}

// fetch runs the command that needs commits of a job, which simulated guests do
// not make.
func (s schemas) fetch(t *testing.T, repo string) string {
	t.Helper()
	f := newFake(t)
	dir := filepath.Join(f.dir, "api/GET/v1/jobs/job_1/artifacts")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	git(t, repo, "bundle", "create", "-q", filepath.Join(dir, "changes.bundle"), "HEAD")
	if err := os.WriteFile(dir+".json", []byte(`{"items":[{"job_id":"job_1","name":"changes.bundle"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	got := runCLI(f.socket, "job fetch job_1 --repo "+repo)
	if got.Code != 0 {
		t.Fatal(got.Stderr)
	}
	return s.of(t, "job fetch", "branch", got.Stdout)
}

// Every class of error that a daemon answers has its exit code, and its JSON is
// as described.
func TestErrorsAreAsDescribed(t *testing.T) {
	all := readSchemas(t)
	f := newFake(t)
	known := map[int]bool{}
	for _, c := range codes {
		known[c.Code] = c.Meaning != ""
	}
	for _, class := range fault.Classes() {
		body, err := json.Marshal(api.Problem{Class: string(class), Detail: "no", Hint: "do", Errors: []string{"a", "b"}})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(f.dir, fmt.Sprintf("api/GET/v1/jobs/%s.%d", class, api.StatusOf(string(class))))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, body, 0o600); err != nil {
			t.Fatal(err)
		}
		want, ok := exitCodes[class]
		if !ok {
			want = exitFailed
		}
		got := runCLI(f.socket, "job show "+string(class))
		if got.Code != want || !known[want] || got.Stdout != "" {
			t.Errorf("%s: exit code %d, want %d, which the reference must know", class, got.Code, want)
		}
		all.check(t, "problem", got.Stderr, false)
	}
	for _, line := range []string{"bogus", "job show", "job", "sandbox new", "job run --task x"} {
		got := runCLI(f.socket, line)
		if got.Code != 2 {
			t.Errorf("%s: exit code %d", line, got.Code)
		}
		all.check(t, "problem", got.Stderr, false)
	}
}

// runCLI runs this program, with --json.
func runCLI(socket, line string) testkit.Result {
	cmd := exec.Command("agentlab", append([]string{"--json"}, strings.Fields(line)...)...)
	cmd.Env = append(os.Environ(), "AGENTLAB_SOCKET="+socket)
	return testkit.Capture(cmd)
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f, err := startFake(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

// newRepo makes a repository with one commit.
func newRepo(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	git(t, dir, "init", "-q")
	git(t, dir, "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-q", "--allow-empty", "-m", "first")
	return dir
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
