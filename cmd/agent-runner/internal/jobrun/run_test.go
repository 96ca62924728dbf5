package jobrun_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/gitrepo"
	"github.com/agentlab/agentlab/core/guestapi"
)

const working = `set -e
echo "task $AGENTLAB_TASK / $(cat $AGENTLAB_TASK_FILE) in $PWD"
echo "key $MY_KEY"; printf 'split plan'; sleep 0.3; echo 'ted-secret-value end'
echo "$MY_KEY" >$AGENTLAB_ARTIFACTS_DIR/leak.txt
mkdir $AGENTLAB_ARTIFACTS_DIR/sub; echo fine >$AGENTLAB_ARTIFACTS_DIR/sub/ok.txt; echo mine >$AGENTLAB_ARTIFACTS_DIR/report.json
ln -s /etc/passwd $AGENTLAB_ARTIFACTS_DIR/passwd
echo result >result; git add result; git commit --quiet -m work
`

func TestCompleted(t *testing.T) {
	h := newHost(t)
	origin := h.packed(map[string]string{"README": "hello"})
	h.cutRepo = 2
	g := newGuest(t, h)
	if err := g.Run(t.Context(), job(working)); err != nil {
		t.Fatal(err)
	}
	h.check("completed", 0, "", true)
	log := string(h.log)
	if strings.Contains(log, planted) || !strings.Contains(log, "key [REDACTED]\nsplit [REDACTED] end") ||
		!strings.Contains(log, "task do it / do it in "+g.Layout.At("/workspace/repo")) {
		t.Errorf("log:\n%s", log)
	}
	if diff := cmp.Diff([]string{"clone", "agent", "upload"}, h.stages); diff != "" {
		t.Error(diff)
	}
	if h.files["sub/ok.txt"] != "fine\n" || h.files["artifacts/report.json"] != "mine\n" {
		t.Errorf("files %q", h.files)
	}
	if _, ok := h.files["passwd"]; ok {
		t.Error("a link was followed")
	}
	var res guestapi.JobResult
	if err := json.Unmarshal([]byte(h.files["report.json"]), &res); err != nil {
		t.Fatal(err)
	}
	if res.Status != "completed" || res.Commits != 1 || cmp.Diff(res.Flagged, []string{"leak.txt"}) != "" || res.Commit != h.final.Commit {
		t.Errorf("report %+v", res)
	}
	bundle := filepath.Join(t.TempDir(), "b")
	if err := os.WriteFile(bundle, []byte(h.files["changes.bundle"]), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := gitrepo.Fetch(t.Context(), origin, bundle, "agentlab/job_1"); err != nil || got != res.Commit {
		t.Errorf("fetched %s %v, want %s", got, err, res.Commit)
	}
	h.final = nil
	if err := g.Run(t.Context(), job(working)); err != nil || h.final != nil {
		t.Errorf("a reported job was touched again: %v %v", err, h.final)
	}
}

func TestOutcomes(t *testing.T) {
	for name, c := range map[string]struct {
		command string
		ttl     time.Duration
		cancel  bool
		status  string
		code    int
		message string
	}{
		"exit code":    {"exit 3", 0, false, "failed", 3, "exit code 3"},
		"time limit":   {"echo up; trap 'echo bye; exit 0' TERM; sleep 60 & wait", 2 * time.Second, false, "timeout", 124, "within"},
		"cancelled":    {"echo up; sleep 60", 0, true, "cancelled", 130, "cancelled"},
		"deaf":         {"trap '' TERM; echo up; while :; do sleep 1; done", 2 * time.Second, false, "timeout", 124, ""},
		"log quota":    {"yes " + strings.Repeat("x", 100), 0, false, "failed", 125, "log exceeded 1.0 MiB (log_max_bytes in the daemon's configuration)"},
		"nothing":      {"", 0, false, "failed", 125, "chmod +x .agentlab/run.sh"},
		"no such cli":  {"codex", 0, false, "failed", 125, "no program \"codex\""},
		"no commits":   {"true", 0, false, "completed", 0, ""},
		"broken repo":  {"rm -rf .git", 0, false, "completed", 0, ""},
		"large file":   {"head -c 2000000 /dev/zero >$AGENTLAB_ARTIFACTS_DIR/big", 0, false, "failed", 125, "big"},
		"secret name":  {"echo $MY_KEY >$AGENTLAB_ARTIFACTS_DIR/$MY_KEY", 0, false, "completed", 0, ""},
		"secret error": {"exit 7 # " + planted, 0, false, "failed", 7, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.packed(map[string]string{"README": "hello"})
			j := job(c.command)
			if c.ttl != 0 {
				j.TTL = c.ttl
			}
			if c.cancel {
				go func() { h.await("up"); h.with(func() { h.cancel = true }) }()
			}
			if err := newGuest(t, h).Run(t.Context(), j); err != nil {
				t.Fatal(err)
			}
			h.check(c.status, c.code, c.message, name != "large file")
			if name == "log quota" && len(h.log) != 1<<20 {
				t.Errorf("%d bytes of log", len(h.log))
			}
			if report := h.files["report.json"]; report == "" || strings.Contains(report, planted) {
				t.Errorf("report.json: %s", report)
			}
		})
	}
}

// A secret in a commit does not keep the commits from their owner, who is told
// where it is; its value is nowhere but in the commits.
func TestSecretInACommit(t *testing.T) {
	for name, c := range map[string]struct{ command, want string }{
		"content": {"echo K=$MY_KEY >.env; git add .env; git commit -qm work", "holds a value of the secrets bundle: commit COMMIT, .env"},
		"message": {"git commit -q --allow-empty -m \"$MY_KEY\"", "holds a value of the secrets bundle: commit COMMIT, its message or author"},
		"name":    {"touch $MY_KEY; git add .; git commit -qm work", "holds a value of the secrets bundle: commit COMMIT, the name of a file in .; commit COMMIT, [REDACTED]"},
		"second":  {"echo x >a; git add a; git commit -qm work; echo K=$MY_KEY >.env; git add .env; git commit -qm more", "holds a value of the secrets bundle: commit COMMIT, .env"},
		"clean":   {"echo x >a; git add a; git commit -qm work", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.packed(map[string]string{"README": "hello"})
			if err := newGuest(t, h).Run(t.Context(), job("set -e\n"+c.command)); err != nil {
				t.Fatal(err)
			}
			h.check("completed", 0, "", true)
			var res guestapi.JobResult
			if err := json.Unmarshal([]byte(h.files["report.json"]), &res); err != nil {
				t.Fatal(err)
			}
			want := strings.ReplaceAll(c.want, "COMMIT", res.Commit[:12])
			if h.flagged["changes.bundle"] != want || res.ChangesFlagged != want || slices.Contains(res.Flagged, "changes.bundle") != (want != "") {
				t.Errorf("flagged %q, report %+v, want %q", h.flagged["changes.bundle"], res, want)
			}
			if h.files["changes.bundle"] == "" || want != "" && !strings.Contains(string(h.log), "agentlab: changes.bundle "+want) {
				t.Errorf("no bundle, or nothing said of it: %v\n%s", slices.Collect(maps.Keys(h.files)), h.log)
			}
			if strings.Contains(string(h.log)+h.files["report.json"], planted) {
				t.Error("the value is told")
			}
		})
	}
}

func TestRepositoryScriptAndURL(t *testing.T) {
	h := newHost(t)
	origin := h.packed(map[string]string{".agentlab/run.sh": "#!/bin/sh\necho script ran as $AGENTLAB_JOB_ID\n"})
	h.repo = nil
	j := job("")
	j.RepoURL = "file://" + origin
	g := newGuest(t, h)
	if err := g.Run(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	h.check("completed", 0, "", true)
	if !strings.Contains(string(h.log), "script ran as job_1") {
		t.Errorf("log:\n%s", h.log)
	}
	j.ID, j.Ref = "job_2", "nope"
	if err := g.Run(t.Context(), j); err != nil {
		t.Fatal(err)
	}
	h.check("failed", 125, "no branch, tag or commit \"nope\"", true)
}

// A workspace that an earlier job left behind must have no effect on the next.
func TestReusedWorkspaceIsHostile(t *testing.T) {
	h := newHost(t)
	h.packed(map[string]string{"README": "hello", ".gitattributes": "* filter=trap\n"})
	g := newGuest(t, h)
	witness := filepath.Join(t.TempDir(), "witness")
	hooks := g.Layout.At("/workspace/repo/.git/hooks")
	if err := os.MkdirAll(hooks, 0o755); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		hooks + "/post-checkout":                   "#!/bin/sh\ntouch " + witness,
		hooks + "/reference-transaction":           "#!/bin/sh\ntouch " + witness,
		g.Layout.At("/workspace/repo/.git/config"): "[core]\n\tfsmonitor = touch " + witness + "\n[filter \"trap\"]\n\tsmudge = touch " + witness + "\n",
		g.Layout.At("/workspace/repo/old"):         "old",
		g.Layout.At("/home/agent/.gitconfig"):      "[core]\n\thooksPath = " + hooks + "\n[filter \"trap\"]\n\tsmudge = touch " + witness + "\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Run(t.Context(), job("ls")); err != nil {
		t.Fatal(err)
	}
	h.check("completed", 0, "", true)
	if _, err := os.Stat(witness); err == nil {
		t.Error("something of the old workspace was run")
	}
	if strings.Contains(string(h.log), "\nold\n") {
		t.Error("old files are in the new checkout")
	}
	if kept, _ := filepath.Glob(g.Layout.At("/workspace/repo.*/old")); len(kept) != 1 {
		t.Errorf("the old workspace is gone: %v", kept)
	}
}

func TestOldWorkspacesAreForgotten(t *testing.T) {
	h := newHost(t)
	h.packed(map[string]string{"README": "hello"})
	g := newGuest(t, h)
	at := func(name string) string { return g.Layout.At("/workspace/" + name) }
	for _, name := range []string{
		"repo/.git", "repo.20250101T000000.000", "repo.20250102T000000.000/deep", "repo.20250103T000000.000", "repo.20250104T000000.000", "repo.mine", "other.20250101T000000.000",
	} {
		if err := os.MkdirAll(at(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Run(t.Context(), job("true")); err != nil {
		t.Fatal(err)
	}
	h.check("completed", 0, "", true)
	for name, stays := range map[string]bool{
		"repo.20250101T000000.000": false, "repo.20250102T000000.000": false,
		"repo.20250103T000000.000": true, "repo.20250104T000000.000": true, "repo.mine": true, "other.20250101T000000.000": true,
	} {
		if _, err := os.Stat(at(name)); (err == nil) != stays {
			t.Errorf("%s stays: %v, want %v", name, err == nil, stays)
		}
	}
}

func TestRestartWhileTheAgentRuns(t *testing.T) {
	for boot, message := range map[string]string{"boot-1": "agent-runner was restarted", "boot-2": "the guest rebooted"} {
		h := newHost(t)
		h.packed(map[string]string{"README": "hello"})
		g := newGuest(t, h)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { h.await("up 1"); cancel() }()
		command := "echo x >>$HOME/runs; echo up $(wc -l <$HOME/runs); echo part >$AGENTLAB_ARTIFACTS_DIR/part; sleep 60"
		if err := g.Run(ctx, job(command)); err == nil || h.final != nil {
			t.Fatalf("error %v, report %v", err, h.final)
		}
		setBootID(t, g.Layout, boot)
		if err := g.Run(t.Context(), job(command)); err != nil {
			t.Fatal(err)
		}
		h.check("failed", 125, message, true)
		if runs, _ := os.ReadFile(g.Layout.At("/home/agent/runs")); string(runs) != "x\n" {
			t.Errorf("the agent was run %d times", len(runs)/2)
		}
		if h.files["part"] != "part\n" || strings.Count(string(h.log), "up 1") != 1 {
			t.Errorf("files %q, log:\n%s", h.files, h.log)
		}
	}
}

// An agent never runs twice, also when the guest has forgotten that it ran.
func TestLostJournal(t *testing.T) {
	for name, c := range map[string]struct {
		journal string // "" for none
		attempt int
		runs    string
	}{
		"new":           {"", 1, "x\nx\n"},
		"another job's": {`{"job":"job_0","phase":"running"}`, 1, "x\nx\n"},
		"gone":          {"", 2, "x\n"},
		"restored":      {`{"job":"job_0","phase":"reported"}`, 2, "x\n"},
		"empty":         {"\n", 1, "x\n"},
		"cut":           {`{"job":"job_1","pha`, 1, "x\n"},
		"nothing in it": {"{}", 1, "x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.packed(map[string]string{"README": "hello"})
			g := newGuest(t, h)
			j := job("echo x >>$HOME/runs; echo kept >$AGENTLAB_ARTIFACTS_DIR/f")
			if err := g.Run(t.Context(), j); err != nil {
				t.Fatal(err)
			}
			h.with(func() { clear(h.files) })
			err := os.Remove(g.Layout.Journal())
			if c.journal != "" {
				err = os.WriteFile(g.Layout.Journal(), []byte(c.journal), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			j.Attempt = c.attempt
			if err := g.Run(t.Context(), j); err != nil {
				t.Fatal(err)
			}
			runs, _ := os.ReadFile(g.Layout.At("/home/agent/runs"))
			if string(runs) != c.runs || h.files["f"] != "kept\n" {
				t.Errorf("runs %q, files %q", runs, h.files)
			}
			if c.runs == "x\n" {
				h.check("failed", 125, "lost its notes on the job", true)
			} else {
				h.check("completed", 0, "", true)
			}
		})
	}
}

func TestRestartWhileUploading(t *testing.T) {
	h := newHost(t)
	h.packed(map[string]string{"README": "hello"})
	g := newGuest(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	h.refuse = func(r *http.Request) int {
		if r.URL.Path != guestapi.UploadPath {
			return 0
		}
		if tries++; tries == 3 {
			cancel()
		}
		return http.StatusServiceUnavailable
	}
	command := "echo x >>$HOME/runs; echo once >$AGENTLAB_ARTIFACTS_DIR/f"
	if err := g.Run(ctx, job(command)); err == nil {
		t.Fatal("no error")
	}
	h.with(func() { h.refuse = nil })
	if err := g.Run(t.Context(), job(command)); err != nil {
		t.Fatal(err)
	}
	h.check("completed", 0, "", true)
	if runs, _ := os.ReadFile(g.Layout.At("/home/agent/runs")); string(runs) != "x\n" || h.files["f"] != "once\n" {
		t.Errorf("runs %q, files %q", runs, h.files)
	}
}

// What cannot be uploaded takes nothing else with it.
func TestUploadInPart(t *testing.T) {
	for name, c := range map[string]struct{ command, message string }{
		"large commits":  {"head -c 2000000 /dev/urandom >big; git add big; git commit -qm big", "upload changes.bundle"},
		"too many files": {"cd $AGENTLAB_ARTIFACTS_DIR; touch $(seq 100000 100989)", "more than 990 files"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.packed(map[string]string{"README": "hello"})
			if err := newGuest(t, h).Run(t.Context(), job("echo hi >$AGENTLAB_ARTIFACTS_DIR/0.md;"+c.command)); err != nil {
				t.Fatal(err)
			}
			h.check("failed", 125, c.message, false)
			if h.files["0.md"] != "hi\n" || h.files["report.json"] == "" {
				t.Errorf("%d files arrived", len(h.files))
			}
		})
	}
}

// Names that the host does not take are the agent's doing, as links are.
func TestOddNames(t *testing.T) {
	h := newHost(t)
	h.packed(map[string]string{"README": "hello"})
	command := `cd $AGENTLAB_ARTIFACTS_DIR
mkdir agent.log report.json changes.bundle; touch agent.log/x report.json/x changes.bundle/x artifacts
touch fine "$(printf 'at 9\342\200\257AM')" "$(printf 'two\nlines')" 'a\b' "$(printf '\377')" "<$MY_KEY>"
echo c >"$AGENTLAB_REPO_DIR/c"; cd "$AGENTLAB_REPO_DIR"; git add c; git commit -qm c`
	if err := newGuest(t, h).Run(t.Context(), job(command)); err != nil {
		t.Fatal(err)
	}
	h.check("completed", 0, "", true)
	var got []string
	for name := range h.files {
		got = append(got, name)
	}
	slices.Sort(got)
	want := []string{"artifacts/agent.log/x", "artifacts/changes.bundle/x", "artifacts/report.json/x", "changes.bundle", "fine", "report.json"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, line := range []string{`"at 9\u202fAM" was passed over: `, `"two\nlines" `, `"a\\b" `, `"\xff" `, `"<[REDACTED]>" `, `"artifacts" `, "characters that are not allowed"} {
		if !strings.Contains(string(h.log), line) {
			t.Errorf("the log lacks %s:\n%s", line, h.log)
		}
	}
}

func TestUploadRefused(t *testing.T) {
	for name, refuse := range map[string]func(*http.Request) int{
		"quota":     func(r *http.Request) int { return map[bool]int{true: 413}[r.URL.Query().Get("path") == "f"] },
		"report":    func(r *http.Request) int { return map[bool]int{true: 413}[r.URL.Query().Get("path") == "report.json"] },
		"log quota": func(r *http.Request) int { return map[bool]int{true: 413}[r.URL.Path == guestapi.LogPath] },
		"flaky": func() func(*http.Request) int {
			n := 0
			return func(*http.Request) int { n++; return map[bool]int{true: 500}[n%3 == 0] }
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.packed(map[string]string{"README": "hello"})
			h.refuse = refuse
			if err := newGuest(t, h).Run(t.Context(), job("echo up; sleep 1; echo f >$AGENTLAB_ARTIFACTS_DIR/f")); err != nil {
				t.Fatal(err)
			}
			switch name {
			case "quota":
				h.check("failed", 125, "upload f", false)
			case "report":
				h.check("failed", 125, "upload report.json", false)
			case "log quota":
				h.check("failed", 125, "log exceeded", true)
			default:
				h.check("completed", 0, "", true)
			}
		})
	}
}
