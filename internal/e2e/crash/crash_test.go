package crash_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	repoURL = "https://git.example/repo.git" // simulated guests do not clone it
	patient = 3 * time.Minute
)

// TestMain runs more tests at once than there are cores: most of their time is
// spent waiting for restarts and retries.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", "6")
	}
	os.Exit(m.Run())
}

// gone reports whether the call found no daemon, or one whose plugins were away.
func gone(err error) bool { return errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Timeout) }

// submit asks for a job as a careful client does: when the answer was lost, it
// looks whether the job is there before it asks again. The task must be the
// only one of its kind.
func submit(t *testing.T, s *testkit.Sim, req api.JobCreate) api.Job {
	t.Helper()
	if req.RepoURL == "" && req.RepoID == "" {
		req.RepoURL = repoURL
	}
	if req.Profile == "" && req.Sandbox == "" {
		req.Profile = "sim"
	}
	for deadline := time.Now().Add(patient); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		got, err := s.Client.CreateJob(t.Context(), req)
		if err == nil {
			return *got.Job
		}
		if !gone(err) {
			t.Fatalf("submit job: %v", err)
		}
		jobs, err := retried(t, func(ctx context.Context) ([]api.Job, error) {
			return s.Client.Jobs(ctx, client.JobQuery{Limit: 1000})
		})
		if err != nil {
			t.Fatalf("list jobs: %v", err)
		}
		if i := slices.IndexFunc(jobs, func(j api.Job) bool { return j.Task == req.Task }); i >= 0 {
			return jobs[i]
		}
	}
	t.Fatal("no daemon took the job")
	return api.Job{}
}

// newSandbox is submit for a sandbox; its name must be the only one.
func newSandbox(t *testing.T, s *testkit.Sim, name string) api.Sandbox {
	t.Helper()
	for deadline := time.Now().Add(patient); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		got, err := s.Client.CreateSandbox(t.Context(), api.SandboxCreate{Profile: "sim", Name: name})
		if err == nil {
			return *got.Sandbox
		}
		if errors.Is(err, fault.Exists) {
			return sandbox(t, s, name)
		}
		if !gone(err) {
			t.Fatalf("create sandbox: %v", err)
		}
	}
	t.Fatal("no daemon took the sandbox")
	return api.Sandbox{}
}

// retried repeats a reading call while the daemon is away.
func retried[T any](t *testing.T, f func(context.Context) (T, error)) (v T, err error) {
	t.Helper()
	for deadline := time.Now().Add(patient); ; time.Sleep(50 * time.Millisecond) {
		if v, err = f(t.Context()); err == nil || !gone(err) || time.Now().After(deadline) {
			return v, err
		}
	}
}

func sandbox(t *testing.T, s *testkit.Sim, ref string) api.Sandbox {
	t.Helper()
	sb, err := retried(t, func(ctx context.Context) (api.Sandbox, error) { return s.Client.Sandbox(ctx, ref) })
	if err != nil {
		t.Fatalf("read sandbox %s: %v", ref, err)
	}
	return sb
}

func awaitSandbox(t *testing.T, s *testkit.Sim, ref string, want lab.SandboxState) api.Sandbox {
	t.Helper()
	var sb api.Sandbox
	testkit.Eventually(t, patient, fmt.Sprintf("sandbox %s is %s", ref, want), func() bool {
		sb = sandbox(t, s, ref)
		return sb.State == string(want)
	})
	return sb
}

func awaitJob(t *testing.T, s *testkit.Sim, id string) api.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patient)
	defer cancel()
	j, err := s.Client.WaitJob(ctx, id)
	if err != nil {
		t.Fatalf("wait for job %s: %v", id, err)
	}
	return j
}

// awaitJobState waits until the job is in a state that is not its last.
func awaitJobState(t *testing.T, s *testkit.Sim, id string, want lab.JobState) {
	t.Helper()
	testkit.Eventually(t, patient, fmt.Sprintf("job %s is %s", id, want), func() bool {
		j, err := s.Client.Job(t.Context(), id, 0)
		return err == nil && j.State == string(want)
	})
}

// awaitIdle waits until the daemon has nothing more to do.
func awaitIdle(t *testing.T, s *testkit.Sim) {
	t.Helper()
	testkit.Eventually(t, patient, "no operation is open", func() bool {
		open, err := s.Client.Operations(t.Context(), client.OperationQuery{Open: true})
		return err == nil && len(open) == 0
	})
}

func jobLog(t *testing.T, s *testkit.Sim, id string) string {
	t.Helper()
	r, err := s.Client.JobLog(t.Context(), id, client.LogQuery{})
	if err != nil {
		t.Fatalf("read log: %v", err)
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read log: %v", err)
	}
	return string(b)
}

// left names what is in the world; nothing should be when all has ended.
func left(t *testing.T, w *world.World) []string {
	t.Helper()
	var out []string
	err := w.View(t.Context(), func(tx *world.Tx) error {
		vms, err := tx.VMs()
		for _, vm := range vms {
			out = append(out, fmt.Sprintf("VM %d of %q, power %s", vm.VMID, vm.Owner, vm.Power))
		}
		attached, err2 := tx.Attachments()
		for _, a := range attached {
			out = append(out, "network of "+a.SandboxID)
		}
		return errors.Join(err, err2)
	})
	if err != nil {
		t.Fatal(err)
	}
	disks, err := os.ReadDir(w.Dir() + "/guests")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		out = append(out, "guest's file "+d.Name())
	}
	return out
}

// awaitGuest waits until a machine of the sandbox is on.
func awaitGuest(t *testing.T, s *testkit.Sim, vmid uint32) world.VM {
	t.Helper()
	var found world.VM
	testkit.Eventually(t, patient, fmt.Sprintf("VM %d is on", vmid), func() bool {
		vms, err := s.World.VMs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(vms, func(vm world.VM) bool { return vm.VMID == vmid && vm.Power == hypervisor.PowerOn })
		if i >= 0 {
			found = vms[i]
		}
		return i >= 0
	})
	return found
}
