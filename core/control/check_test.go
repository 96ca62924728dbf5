package control_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/problem"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// What a job would be refused for, validation refuses with the same words, and
// the other way round.
func TestValidateJobIsCreateJobWithoutRows(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	const url = "https://h/x.git"
	spec := d.world.specs["good"]
	spec.NetworkMode, spec.NetworkAllow = "allowlist", []string{"10.77.3.4:80"}
	d.world.specs["own-subnet"] = spec // only the scheduler knows the subnet
	d.must(d.store.PutRepo(ctx, state.Repo{ID: "repo_1", Size: 1}))
	_, err := d.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "good", Name: "busy"})
	d.must(err)
	free, err := d.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "claude", Name: "free"})
	d.must(err)
	d.ready(free.Sandbox.ID)
	d.endOperation(free.Operation.ID)
	before := d.rows()
	for name, in := range map[string]api.JobCreate{
		"good":             {Profile: "good", Task: "t", RepoURL: url},
		"upload":           {Profile: "good", Task: "t", RepoID: "repo_1"},
		"in a sandbox":     {Sandbox: "free", Task: "t", RepoURL: url},
		"in a busy one":    {Sandbox: "busy", Task: "t", RepoURL: url},
		"in none":          {Sandbox: "none", Task: "t", RepoURL: url},
		"own subnet":       {Profile: "own-subnet", Task: "t", RepoURL: url},
		"unknown profile":  {Profile: "goood", Task: "t", RepoURL: url},
		"unknown template": {Profile: "no-template", Task: "t", RepoURL: url},
		"broken template":  {Profile: "broken", Task: "t", RepoURL: url},
		"missing agent":    {Profile: "codex", Task: "t", RepoURL: url},
		"empty task":       {Profile: "good", RepoURL: url},
		"no repository":    {Profile: "good", Task: "t"},
		"bad ref and url":  {Profile: "good", Task: "t", RepoURL: "file:///x", Ref: "-x"},
		"all at once":      {Profile: "no-bundle", RepoURL: "https://u:p@h/x", TTLSeconds: 1 << 50},
	} {
		_, checked := d.c.ValidateJob(ctx, api.JobCheck{JobCreate: in})
		if d.rows() != before {
			t.Fatalf("%s: validation made rows", name)
		}
		made, created := d.c.CreateJob(ctx, in)
		if created == nil {
			if in.Sandbox != "" { // free again for the next one
				d.endOperation(made.Operation.ID)
			}
			before = d.rows()
		}
		text := func(err error) string {
			if err == nil {
				return ""
			}
			return string(fault.ClassOf(err)) + " " + strings.TrimPrefix(err.Error(), "submit run-job: ") + " " + fault.HintOf(err)
		}
		if diff := cmp.Diff(text(created), text(checked)); diff != "" {
			t.Errorf("%s: created and validated differ: %s", name, diff)
		}
	}
	_, err = d.c.ValidateJob(ctx, api.JobCheck{JobCreate: api.JobCreate{Profile: "no-bundle", RepoURL: "https://u:p@h/x", TTLSeconds: 1 << 50}})
	if n := len(problem.DetailsOf(err)); n != 4 {
		t.Errorf("%d problems are told, want 4: %v", n, err)
	}
}

// A sandbox without network is given what is uploaded, and clones nothing.
func TestRepositoryOutOfReachIsRefused(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	offline := d.world.specs["good"]
	offline.NetworkMode = "off"
	d.world.specs["offline"] = offline
	box, err := d.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "offline", Name: "box"})
	d.must(err)
	for name, in := range map[string]api.JobCreate{
		`profile "offline"`: {Profile: "offline", Task: "t", RepoURL: "git@git.example:foo/bar"},
		"sandbox box":       {Sandbox: box.Sandbox.ID, Task: "t", RepoURL: "https://git.example/x"},
	} {
		_, err := d.c.ValidateJob(ctx, api.JobCheck{JobCreate: in})
		wantClass(t, "validate", err, fault.Invalid)
		want := "the repository's URL cannot be reached: the network of " + name + " is off"
		if _, made := d.c.CreateJob(ctx, in); err == nil || made == nil || made.Error() != err.Error() ||
			!strings.Contains(err.Error(), want) || !strings.Contains(fault.HintOf(err), "is uploaded") {
			t.Errorf("validate: %v (%s); create: %v; want %q", err, fault.HintOf(err), made, want)
		}
	}
	_, err = d.c.ValidateJob(ctx, api.JobCheck{JobCreate: api.JobCreate{Profile: "offline", Task: "t"}, LocalRepo: true})
	d.must(err)
}

// A bundle that opens, but is not what guests are given, is refused before
// anything is made; one that only could be better is not.
func TestBundleOfTheWrongFormIsRefused(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	spec := d.world.specs["good"]
	spec.Bundle = "default"
	d.world.specs["good"] = spec
	in := api.JobCreate{Profile: "good", Task: "t", RepoURL: "https://git.example/x"}
	for want, about := range map[string]secrets.Description{
		`profile "good": secrets bundle "default" cannot be opened: enw (line 2): unknown key; git: must be a mapping`: {
			Problems: []string{"enw (line 2): unknown key", "git: must be a mapping"}, Warnings: []string{"short"},
		},
		`/k has mode 0644 (chmod 600 /k) [on the host, as root: chmod 600 /k]`: {Problems: []string{"/k has mode 0644 (chmod 600 /k)"}},
		"": {Warnings: []string{"env.A is shorter than 6 bytes"}},
	} {
		d.world.mu.Lock()
		d.world.bundle = about
		d.world.mu.Unlock()
		before := d.rows()
		_, err := d.c.ValidateJob(ctx, api.JobCheck{JobCreate: in})
		if want == "" {
			d.must(err)
			continue
		}
		wantClass(t, "validate", err, fault.Precondition)
		if _, made := d.c.CreateJob(ctx, in); made == nil || made.Error() != err.Error() || !strings.Contains(err.Error()+" ["+fault.HintOf(err)+"]", want) || d.rows() != before {
			t.Errorf("validate: %v; create: %v; want %q", err, made, want)
		}
	}
}

// rows counts what there is.
func (d *daemon) rows() (n int) {
	d.t.Helper()
	jobs, err := d.store.Jobs(d.t.Context(), state.JobFilter{})
	d.must(err)
	boxes, err := d.store.Sandboxes(d.t.Context(), state.SandboxFilter{All: true})
	d.must(err)
	ops, err := d.store.Operations(d.t.Context(), state.OperationFilter{})
	d.must(err)
	return len(jobs) + len(boxes) + len(ops)
}

func TestJobPlan(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	plan, err := d.c.ValidateJob(ctx, api.JobCheck{JobCreate: api.JobCreate{Profile: "claude", Task: "t", TTLSeconds: 60, Mode: "dangerous"}, LocalRepo: true})
	if err != nil || plan.Profile.Name != "claude" || plan.Profile.AgentCommand != "claude" || plan.Mode != "dangerous" || plan.TTLSeconds != 60 || plan.Sandbox != nil {
		t.Errorf("plan %+v, %v", plan, err)
	}
	d.world.templates = append(d.world.templates, hypervisor.Template{VMID: 9002, Name: "bare"})
	bare, line := d.world.specs["good"], d.world.specs["good"]
	bare.Template, line.Template, line.AgentCommand = "bare", "bare", "make test"
	d.world.specs["bare"], d.world.specs["line"] = bare, line
	for _, c := range []struct{ profile, script, want, refused string }{
		{"bare", api.ScriptExecutable, ".agentlab/run.sh", ""},
		{"bare", api.ScriptMissing, "", "the repository no .agentlab/run.sh"},
		{"bare", api.ScriptPlain, "", ".agentlab/run.sh of the repository is not executable"},
		{"bare", "", "", ""},
		{"line", api.ScriptMissing, "make test", ""},
		{"line", api.ScriptExecutable, "make test", ""},
		{"good", api.ScriptMissing, "claude", ""}, // the template's
		{"claude", api.ScriptMissing, "claude", ""},
		{"claude", api.ScriptExecutable, ".agentlab/run.sh", ""},
	} {
		plan, err := d.c.ValidateJob(ctx, api.JobCheck{JobCreate: api.JobCreate{Profile: c.profile, Task: "t"}, LocalRepo: true, Script: c.script})
		switch {
		case c.refused != "":
			wantClass(t, c.profile+" "+c.script, err, fault.Precondition)
			if !strings.Contains(err.Error(), c.refused) || fault.HintOf(err) == "" {
				t.Errorf("%s, script %s: %v (hint %q)", c.profile, c.script, err, fault.HintOf(err))
			}
		case err != nil || plan.Agent != c.want:
			t.Errorf("%s, script %s: %q, %v, want %q", c.profile, c.script, plan.Agent, err, c.want)
		}
	}
	_, err = d.c.ValidateJob(ctx, api.JobCheck{JobCreate: api.JobCreate{Profile: "good", Task: "t", RepoURL: "https://h/x"}, LocalRepo: true})
	wantClass(t, "two repositories", err, fault.Invalid)
}

func TestProfilesAreChecked(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	spec := d.world.specs["no-template"]
	spec.Bundle, spec.NetworkMode = "other", "bridge"
	d.world.specs["all-wrong"] = spec
	for name, want := range map[string][]string{
		"good": nil, "claude": nil,
		"all-wrong": {`network mode "bridge"`, `no template "windows"`, `no secrets bundle "other"`},
		"codex":     {"has no codex"},
		"none":      {`no profile "none"`},
	} {
		got, err := d.c.CheckProfile(ctx, name)
		if err != nil || got.Name != name || len(got.Findings) != len(want) {
			t.Errorf("%s: %+v, %v", name, got, err)
			continue
		}
		for i, f := range got.Findings {
			if !strings.Contains(f.Message, want[i]) || f.Level != api.LevelError || f.ID == "" {
				t.Errorf("%s: %+v, want %q", name, f, want[i])
			}
		}
	}
	list, err := d.c.Profiles(ctx)
	if err != nil || len(list.Problems) != 1 {
		t.Errorf("problems %v, %v", list.Problems, err)
	}
	d.world.err = fault.New(fault.Unavailable, "plugin is down")
	got, err := d.c.CheckProfile(ctx, "by-vmid") // its template is not known yet
	d.must(err)
	if len(got.Findings) > 0 && got.Findings[0].ID != "unavailable" {
		t.Errorf("with the plugin down: %+v", got.Findings)
	}
}

func TestPluginByName(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	if p, err := d.c.Plugin(ctx, "qemu"); err != nil || p.Kind != "hypervisor" {
		t.Errorf("plugin %+v, %v", p, err)
	}
	_, err := d.c.Plugin(ctx, "none")
	wantClass(t, "unknown plugin", err, fault.NotFound)
}

func TestConsoleAndHostFindings(t *testing.T) {
	d, ctx := newDaemon(t), t.Context()
	_, err := d.c.Console(ctx, "none")
	wantClass(t, "unknown sandbox", err, fault.NotFound)
	if found, err := d.c.HostFindings(ctx); err != nil || len(found) != 0 {
		t.Errorf("without checks: %+v, %v", found, err)
	}
	d.config.Console = func(_ context.Context, sb lab.Sandbox) ([]byte, error) { return []byte("boot of " + sb.Name), nil }
	d.config.Checks = func(ctx context.Context) []api.Finding {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("checks may take for ever")
		}
		return []api.Finding{{Source: "hypervisor", ID: "kvm", Level: api.LevelWarning, Message: "none"}}
	}
	d.must(errors.Join(d.stop()))
	d.restart()
	if found, err := d.c.HostFindings(ctx); err != nil || len(found) != 1 || found[0].ID != "kvm" {
		t.Errorf("findings %+v, %v", found, err)
	}
	made, err := d.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "good", Name: "box"})
	d.must(err)
	d.must(d.store.BurnVMID(ctx, state.Burn{SandboxID: made.Sandbox.ID, VMID: made.Sandbox.VMID}))
	_, err = d.c.Console(ctx, "box")
	wantClass(t, "without a VM", err, fault.Precondition)
	d.reserve(made.Sandbox.ID)
	r, err := d.c.Console(ctx, "box")
	d.must(err)
	text, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || string(text) != "boot of box" {
		t.Errorf("console %q, %v", text, err)
	}
}
