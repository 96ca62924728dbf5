package badinput_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/agentlab/agentlab/sdk/fault"
)

const url = "https://git.example.org/x"

// TestRequests: each is refused before anything is made. job run ends with 125
// for all that is AgentLab's, as no agent does.
func TestRequests(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	b := newBed(t)
	b.put("profiles/more.hcl", `profile "no-template" {
  template = "debian-13"
}
profile "typo" {
  templat = "debian-12"
}
profile "no-bundle" {
  template       = "debian-12"
  secrets_bundle = "defualt"
}
profile "odd-bundle" {
  template       = "debian-12"
  secrets_bundle = "odd"
}
profile "bad-bundle" {
  template       = "debian-12"
  secrets_bundle = "broken"
}
`, 0o644)
	b.put("world/bundles/broken.yaml", "- no\n- mapping\n", 0o600)
	b.put("world/bundles/odd.yaml", "version: 1\nenw:\n  KEY: some-value\n", 0o600)
	b.Start(t)
	empty, plain := b.repo("empty", 0), b.repo("plain", 1)
	dirty := b.repo("dirty", 1)
	b.put("dirty/new.txt", "x", 0o644)
	foreign := b.repo("foreign", 1)
	if err := os.Chown(foreign, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(b.path("folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(repo, profile string) []string {
		return []string{"job", "run", "--repo", repo, "--profile", profile, "--task", "x"}
	}
	const ours = 125
	for _, tc := range []struct {
		name string
		args []string
		want refusal
	}{
		{"unknown profile", run(url, "smal"), refusal{ours, fault.Invalid, []string{`no profile "smal"`}, "there are: bad-bundle, no-bundle"}},
		{"unknown profile of a sandbox", []string{"sandbox", "new", "--profile", "smal"}, refusal{2, fault.Invalid, []string{`no profile "smal"`}, "plain"}},
		{"unknown profile for a local repository", run(plain, "smal"), refusal{ours, fault.Invalid, []string{`no profile "smal"`}, "plain, sim"}},
		{"profile with a typo", run(url, "typo"), refusal{ours, fault.Invalid, []string{`profile "typo" has mistakes: ` + b.path("profiles/more.hcl") + ":5: "}, "profile check"}},
		{"unknown template", run(url, "no-template"), refusal{ours, fault.Invalid, []string{`profile "no-template"`, `no template "debian-13"`}, "debian-12 (9000)"}},
		{"unknown bundle", run(url, "no-bundle"), refusal{ours, fault.Invalid, []string{`profile "no-bundle"`, `no secrets bundle "defualt"`}, "planted"}},
		{"bundle that does not open", run(url, "bad-bundle"), refusal{ours, fault.Precondition, []string{`bundle "broken" cannot be opened: `}, "in order"}},
		{"bundle with an unknown key", run(plain, "odd-bundle"), refusal{ours, fault.Precondition, []string{`bundle "odd" cannot be opened: enw (line 2): unknown key`}, "in order"}},
		{"bundle that does not open, for a sandbox", []string{"sandbox", "new", "--profile", "bad-bundle"}, refusal{5, fault.Precondition, []string{"cannot be opened"}, "in order"}},
		{"URL of a scheme that no sandbox can use", run("file:///srv/x", "plain"), refusal{ours, fault.Invalid, []string{"cannot be used in a sandbox"}, "https://"}},
		{"URL with a password", run("https://me:secret-pw@git.example.org/x", "plain"), refusal{ours, fault.Invalid, []string{"holds a token or password"}, "git.token"}},
		{"no such directory", run(b.path("nowhere"), "plain"), refusal{ours, fault.NotFound, []string{b.path("nowhere")}, "https://"}},
		{"not a repository", run(b.path("folder"), "plain"), refusal{ours, fault.NotFound, []string{b.path("folder"), "not a git repository"}, "git init"}},
		{"no commit", run(empty, "plain"), refusal{ours, fault.Precondition, []string{empty, "no commit yet"}, "first commit"}},
		{"uncommitted changes", run(dirty, "plain"), refusal{ours, fault.Precondition, []string{dirty, "new.txt"}, "--dirty"}},
		{"somebody else's repository", run(foreign, "plain"), refusal{ours, fault.Denied, []string{foreign, "another user"}, "safe.directory"}},
		{"unknown branch", append(run(plain, "plain"), "--ref", "mian"), refusal{ours, fault.NotFound, []string{`"mian"`}, "git branch"}},
	} {
		t.Run(tc.name, func(t *testing.T) { (&bed{b.Sim, t}).refuse(tc.want, tc.args...) })
	}
	t.Run("shallow repository", func(t *testing.T) {
		b := &bed{b.Sim, t}
		b.repo("long", 3)
		b.git("", "clone", "-q", "--depth=1", "file://"+b.path("long"), b.path("shallow"))
		if r := b.Run(run(b.path("shallow"), "plain")...); r.Code != 0 {
			t.Errorf("a shallow repository goes with its list of boundaries: exit %d\n%s", r.Code, r.Stderr)
		}
		b.wantEmptyWorld()
	})
}
