package scheduler

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
)

func TestJobRunsAndNothingIsLeft(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		b.start(-1)
		job := b.submitJob("destroy")
		b.settle()
		if got := b.job(job.ID); got.State != lab.JobCompleted || got.StartedAt.IsZero() || got.EndedAt.IsZero() {
			t.Errorf("job is %s (%s)%s", got.State, got.Reason, b.history())
		}
		sb := b.sandbox(job.SandboxID)
		if sb.State != lab.SandboxDestroyed || sb.HostKey == "" {
			t.Errorf("sandbox is %s", sb.State)
		}
		want := []string{"attach tap1000i0", "create 1000", "power on 1000", "detach tap1000i0", "destroy 1000"}
		if diff := cmp.Diff(want, b.world.effects); diff != "" {
			t.Errorf("effects (-want +got):\n%s", diff)
		}
		var kinds []string
		for _, op := range b.operations(state.OperationFilter{}) {
			kinds = append(kinds, string(op.Kind)+" "+string(op.State))
		}
		if diff := cmp.Diff([]string{"create-sandbox DONE", "run-job DONE", "destroy-sandbox DONE"}, kinds); diff != "" {
			t.Errorf("operations (-want +got):\n%s", diff)
		}
	})
}

func TestHowJobsEnd(t *testing.T) {
	tests := []struct {
		task, onEnd string
		state       lab.JobState
		reason      string
		sandbox     lab.SandboxState
	}{
		{"", "destroy", lab.JobCompleted, "", lab.SandboxDestroyed},
		{"", "stop", lab.JobCompleted, "", lab.SandboxStopped},
		{"", "keep", lab.JobCompleted, "", lab.SandboxReady},
		{"exit3", "destroy", lab.JobFailed, "exited with 3", lab.SandboxDestroyed},
		{"lost", "destroy", lab.JobFailed, "not uploaded", lab.SandboxDestroyed},
		{"hang", "destroy", lab.JobTimeout, "still running", lab.SandboxDestroyed},
		{"hang", "keep", lab.JobTimeout, "still running", lab.SandboxStopped},
		{"idle", "destroy", lab.JobFailed, "did not begin", lab.SandboxDestroyed},
		{"silent", "destroy", lab.JobFailed, "no sign of life", lab.SandboxDestroyed},
		{"off", "destroy", lab.JobFailed, "the VM stopped", lab.SandboxDestroyed},
		{"mute", "destroy", lab.JobFailed, "Kernel panic", lab.SandboxDestroyed},
		{"mute", "keep", lab.JobFailed, "did not say hello within 5m", lab.SandboxDestroyed},
	}
	for _, tt := range tests {
		t.Run(tt.task+" "+tt.onEnd, func(t *testing.T) {
			inBubble(t, tt.task, func(b *bench) {
				b.start(-1)
				job := b.submitJob(tt.onEnd)
				b.settle()
				got := b.job(job.ID)
				if got.State != tt.state || !strings.Contains(got.Reason, tt.reason) {
					t.Errorf("job is %s (%q), want %s (… %q …)%s", got.State, got.Reason, tt.state, tt.reason, b.history())
				}
				if sb := b.sandbox(job.SandboxID); sb.State != tt.sandbox {
					t.Errorf("sandbox is %s (%s), want %s", sb.State, sb.Reason, tt.sandbox)
				}
				if strings.ContainsRune(got.Reason, '\x1b') {
					t.Errorf("reason %q holds a control character", got.Reason)
				}
			})
		})
	}
}
