package badinput_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/sdk/fault"
)

// onDisks has the daemon run in a mount namespace of its own, with a small file
// system at each of the directories.
func (b *bed) onDisks(sizes ...[2]string) {
	b.t.Helper()
	script := ""
	for _, s := range sizes {
		script += fmt.Sprintf("mkdir -p %[1]s && mount -t tmpfs -o mode=711,size=%[2]s tmpfs %[1]s && ", b.path(s[0]), s[1])
	}
	b.Around = []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", script + `exec "$@"`, "sh"}
}

// resize changes the size of a file system that the daemon sees.
func (b *bed) resize(dir, size string) {
	b.t.Helper()
	cmd := exec.Command("nsenter", "--mount", "--target", fmt.Sprint(b.PID()), "mount", "-o", "remount,size="+size, b.path(dir))
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("remount %s: %v\n%s", dir, err, out)
	}
}

// TestFullArtifactDisk: no job is begun whose results would find no place; one
// that runs waits for room, and is not lost.
func TestFullArtifactDisk(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.onDisks([2]string{"data/artifacts", "300m"})
	b.put("data/agentlabd.lock", "", 0o600) // the directory is ours before the daemon makes it
	b.Start(t)
	want := refusal{125, fault.Exhausted, []string{"MiB are free under " + b.path("data/artifacts")}, "free disk space"}
	b.refuse(want, "job", "run", "--repo", url, "--profile", "plain", "--task", "x")
	if r := b.Run("status"); r.Code != 0 || !strings.Contains(r.Stdout, "MiB are free under "+b.path("data/artifacts")+": free disk space") {
		t.Errorf("status: exit %d\n%s", r.Code, r.Stdout)
	}
	b.resize("data/artifacts", "2g")
	accepted, err := b.Client.CreateJob(t.Context(), api.JobCreate{
		RepoURL: url, Profile: "plain", Task: "sim:print=begun sim:sleep=3s sim:print=ended sim:exit=0",
	})
	if err != nil {
		t.Fatal(err)
	}
	job := accepted.Job.ID
	b.await(job, lab.JobRunning)
	b.resize("data/artifacts", "300m")
	testkit.Eventually(t, 20*time.Second, "the daemon tells that it refuses what the guest sends", func() bool {
		return strings.Contains(b.Log(), "guest data refused")
	})
	b.resize("data/artifacts", "2g")
	done := b.await(job, lab.JobCompleted)
	if len(done.Artifacts) != 2 {
		t.Errorf("the job's files are %+v", done.Artifacts)
	}
	b.wantGone()
}

// TestFullDatabase: a daemon that cannot write says so, goes on answering, and
// takes its work up again when there is space.
func TestFullDatabase(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.onDisks([2]string{"data", "8m"}, [2]string{"data/artifacts", "2g"}, [2]string{"data/repos", "2g"})
	b.Around[6] = strings.Replace(b.Around[6], "exec ", "touch "+b.path("data/agentlabd.lock")+" && exec ", 1)
	b.Start(t)
	accepted, err := b.Client.CreateJob(t.Context(), api.JobCreate{RepoURL: url, Profile: "plain", Task: "sim:sleep=3s sim:exit=0"})
	if err != nil {
		t.Fatal(err)
	}
	job := accepted.Job.ID
	b.await(job, lab.JobRunning)
	filler := filepath.Join("/proc", fmt.Sprint(b.PID()), "root", b.path("data/filler"))
	fill(t, filler)
	time.Sleep(4 * time.Second) // the job's end falls into it
	want := refusal{6, fault.Exhausted, []string{"no space for the database"}, "free disk space under data_dir"}
	b.refuseNow(want, "sandbox", "new", "--profile", "plain")
	if r := b.Run("job", "show", job); r.Code != 0 || !strings.Contains(r.Stdout, "RUNNING") {
		t.Errorf("job show: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	b.await(job, lab.JobCompleted)
	b.wantGone()
}

// fill makes a file that takes all the space that is left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for size := 64 << 10; size > 0; size /= 2 {
		for block := make([]byte, size); err == nil; {
			_, err = f.Write(block)
		}
		err = nil
	}
}

// await waits until the job is in the state.
func (b *bed) await(job string, want lab.JobState) api.Job {
	b.t.Helper()
	var got api.Job
	testkit.Eventually(b.t, 90*time.Second, fmt.Sprintf("the job is %s", want), func() bool {
		var err error
		got, err = b.Client.Job(b.t.Context(), job, 0)
		if err == nil && got.State != string(want) && lab.JobState(got.State).Ended() {
			b.t.Fatalf("the job is %s: %s", got.State, got.Reason)
		}
		return err == nil && got.State == string(want)
	})
	return got
}
