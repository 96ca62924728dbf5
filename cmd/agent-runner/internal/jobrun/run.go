package jobrun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/repotask"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/stream"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/secret"
)

// Names in a job's own directory.
const (
	taskName      = "task.txt"
	artifactsName = "artifacts"
)

// Why a job's work ends early.
var (
	errCancelled = errors.New("the job was cancelled")
	errTimeLimit = errors.New("the job's time is used up")
	errLogQuota  = errors.New("the log's quota is used up")
	errRefused   = errors.New("the host no longer takes reports about the job")
)

// Host is the guest API as a job uses it.
type Host interface {
	Report(ctx context.Context, r guestapi.Report) (guestapi.ReportReply, error)
	Log(ctx context.Context, job string, offset int64, piece []byte) (int64, error)
	Repo(ctx context.Context, job string) (io.ReadCloser, error)
	Upload(ctx context.Context, u guestapi.Upload, file io.Reader) (guestapi.UploadReply, error)
}

// Runner runs jobs in one guest.
type Runner struct {
	Layout         layout.Layout
	Login          layout.Login // the agent's user
	Host           Host
	Programs       repotask.Runner // runs programs as Login
	Exe            string          // this program
	Env            []string        // secrets and git's authentication
	Redactor       *secret.Redactor
	Secrets        []secret.Value // those of the Redactor's that the agent may read
	NoInnerSandbox bool
	Beat           time.Duration // between heartbeats
	Grace          time.Duration // between SIGTERM and SIGKILL; 0: the default
	UploadPatience time.Duration // 0: ten minutes
	Log            hclog.Logger
}

// run is one job on its way.
type run struct {
	*Runner
	job     guestapi.Job
	journal journal
	log     *stream.Log
	pulse   *pulse
}

// Run brings the job to its last report. It returns early, with ctx's error,
// only when ctx ends or when the guest's own disk fails; called again, after a
// restart or a reboot, it goes on.
func (r *Runner) Run(ctx context.Context, job guestapi.Job) error {
	j, err := load(r.Layout, job.ID)
	if err != nil {
		j, err = r.begin(job, err)
	}
	if err != nil || j.Phase == phaseReported {
		return err
	}
	log, err := stream.Open(r.Layout.Spool(), job.LogMaxBytes, r.Redactor)
	if err != nil {
		return err
	}
	defer log.Close()
	x := &run{Runner: r, job: job, journal: j, log: log}
	return x.toTheEnd(ctx)
}

// begin starts the journal of a job that has none; why says so. A job that may
// have come as far as its agent before is not run again: it has failed.
func (r *Runner) begin(job guestapi.Job, why error) (journal, error) {
	j := journal{Job: job.ID, Phase: phaseCloning, BootID: r.Layout.BootID(), StartedAt: time.Now().UTC()}
	if job.Attempt > 1 || !errors.Is(why, os.ErrNotExist) {
		r.Log.Error("journal is lost", "job", job.ID, "err", why)
		j.Phase, j.EndedAt = phaseEnded, j.StartedAt
		j.Outcome = failed("the guest has lost its notes on the job, whose agent may have run already")
	}
	if err := r.prepare(job); err != nil {
		return j, err
	}
	return j, j.save(r.Layout)
}

// prepare makes the job's directory, new and empty.
func (r *Runner) prepare(job guestapi.Job) error {
	if err := os.Remove(r.Layout.Spool()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove an earlier job's log: %w", err)
	}
	owner := layout.Owner{UID: r.Login.UID, GID: r.Login.GID}
	dir := r.Layout.JobDir(job.ID)
	for _, d := range []string{dir, dir + "/" + artifactsName} {
		if err := layout.MakeDir(d, 0o755, owner); err != nil {
			return fmt.Errorf("prepare job: %w", err)
		}
	}
	if err := layout.WriteFile(dir+"/"+taskName, []byte(job.Task), 0o644, owner); err != nil {
		return fmt.Errorf("prepare job: %w", err)
	}
	return r.nameCommitter(owner)
}

// nameCommitter lets the agent commit unless its home says otherwise.
func (r *Runner) nameCommitter(owner layout.Owner) error {
	path := r.Layout.At(r.Login.Home + "/.gitconfig")
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	text := fmt.Sprintf("[user]\n\tname = %s\n\temail = %s@localhost\n", r.Login.Name, r.Login.Name)
	if err := layout.WriteFile(path, []byte(text), 0o644, owner); err != nil {
		return fmt.Errorf("name committer: %w", err)
	}
	return nil
}

// toTheEnd runs what is left of the job while heartbeat and log go on beside it.
func (x *run) toTheEnd(ctx context.Context) error {
	limit := x.job.TTL
	if limit <= 0 {
		limit = 2 * time.Hour
	}
	timed, stopTimer := context.WithDeadlineCause(ctx, time.Now().Add(limit-x.spent()), errTimeLimit)
	defer stopTimer()
	work, stop := context.WithCancelCause(timed)
	defer stop(nil)
	beside, stopBeside := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopBeside()

	x.pulse = newPulse(x.job.ID, x.Beat, x.Host, stop, x.Log)
	wg.Go(func() { x.pulse.run(beside) })
	shipped := make(chan error, 1)
	wg.Go(func() {
		shipped <- x.log.Ship(beside, func(ctx context.Context, at int64, b []byte) (int64, error) {
			return x.Host.Log(ctx, x.job.ID, at, b)
		})
	})
	wg.Go(func() {
		select {
		case <-x.log.Exceeded():
			stop(errLogQuota)
		case <-beside.Done():
		}
	})

	if x.journal.Phase != phaseEnded {
		out := x.work(work)
		if ctx.Err() != nil {
			return fmt.Errorf("run job: %w", context.Cause(ctx)) // the journal tells the next runner
		}
		x.journal.Outcome, x.journal.Phase, x.journal.EndedAt = out, phaseEnded, time.Now().UTC()
		if err := x.journal.save(x.Layout); err != nil {
			return err
		}
	}
	return x.finish(ctx, shipped)
}

// spent is how much of its time the job has used before this call.
func (x *run) spent() time.Duration {
	return max(time.Since(x.journal.StartedAt), 0)
}

// work brings the job to its outcome, unless an earlier runner began that.
func (x *run) work(ctx context.Context) outcome {
	if x.journal.Phase == phaseRunning {
		if x.journal.BootID != x.Layout.BootID() {
			return failed("the guest rebooted while the agent ran")
		}
		return failed("agent-runner was restarted while the agent ran")
	}
	x.pulse.stage("clone")
	if err := x.checkout(ctx); err != nil {
		return x.judge(ctx, -1, fmt.Errorf("clone: %w", err))
	}
	x.pulse.stage("agent")
	code, err := x.agent(ctx)
	return x.judge(ctx, code, err)
}

// judge makes an outcome of how the work ended.
func (x *run) judge(ctx context.Context, code int, err error) outcome {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errLogQuota):
		return failed("log exceeded %s (log_max_bytes in the daemon's configuration)", guestapi.SizeText(x.log.Max()))
	case err == nil && code == 0:
		return outcome{Status: statusCompleted}
	case errors.Is(cause, errCancelled):
		return outcome{statusCancelled, exitCancelled, errCancelled.Error()}
	case errors.Is(cause, errTimeLimit):
		return outcome{statusTimeout, exitTimeout, fmt.Sprintf("the job did not end within %v", x.job.TTL)}
	case errors.Is(cause, errRefused):
		return failed("%s", errRefused)
	case err != nil:
		return failed("%s", withHint(err))
	}
	return outcome{statusFailed, code, fmt.Sprintf("the agent ended with exit code %d", code)}
}

// say writes one of the runner's own lines into the job's log.
func (x *run) say(format string, args ...any) {
	fmt.Fprintf(x.log, "agentlab: "+format+"\n", args...)
}
