package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// journal is how far a job is.
type journal struct {
	ID      string     `json:"id"`
	Boot    uint64     `json:"boot"` // in which the agent began
	Started time.Time  `json:"started"`
	Cloned  bool       `json:"cloned,omitempty"`
	Silent  bool       `json:"silent,omitempty"`
	Result  *jobResult `json:"result,omitempty"` // the agent has ended
	Told    bool       `json:"told,omitempty"`   // the final report arrived
}

var (
	errCancelled = errors.New("cancelled")
	errTimeout   = errors.New("the job's time is over")
	errLogFull   = errors.New("the log's quota is used up")
)

// work runs the job, or what is left of it, to its final report.
func (g *guest) work(ctx context.Context, p payload) error {
	j := g.disk.Job
	if j == nil || j.ID != p.Job.ID {
		j = &journal{ID: p.Job.ID, Boot: g.vm.Boot, Started: time.Now().UTC()}
		g.disk.Job = j
		if err := g.save(ctx); err != nil {
			return err
		}
	}
	if j.Told {
		return nil
	}
	if j.Result == nil {
		status, code, message := "failed", -1, "the guest rebooted while the agent ran"
		if j.Boot == g.vm.Boot {
			if err := g.clone(ctx, p.Job); err != nil {
				return err
			}
			status, code, message = g.agent(ctx, p)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		j.Result = &jobResult{
			Job: j.ID, Status: status, ExitCode: code, Message: message, StartedAt: j.Started,
			DurationSeconds: time.Since(j.Started).Seconds(),
		}
		if err := g.save(ctx); err != nil {
			return err
		}
	}
	return g.hand(ctx, p.Job)
}

// clone fetches the repository, if the host has it, and throws it away. Once it
// is done it is not done again.
func (g *guest) clone(ctx context.Context, j *job) error {
	if g.disk.Job.Cloned {
		return nil
	}
	if _, err := g.tell(ctx, report{Job: j.ID, Kind: stage, Stage: "clone"}, true); err != nil {
		return err
	}
	if j.RepoURL == "" {
		_, _, err := g.insist(ctx, request{op: "guest.repo", method: http.MethodGet, path: repoPath, query: url.Values{"job": {j.ID}}})
		switch {
		case errors.Is(err, errRefused): // a job without a repository is no matter here
			g.print(ctx, "agent-runner: job %s has no repository", j.ID)
		case err != nil:
			return err
		default:
			g.print(ctx, "agent-runner: job %s has its repository", j.ID)
		}
	}
	g.disk.Job.Cloned = true
	return g.save(ctx)
}

// agent does what the task says, and tells how it ended.
func (g *guest) agent(ctx context.Context, p payload) (status string, code int, message string) {
	actions, err := parseTask(p.Job.Task)
	if err != nil {
		return "failed", 2, err.Error()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	deaf := slices.ContainsFunc(actions, func(a action) bool { return a.word == "stuck" || a.word == "silent" })
	if p.Job.TTL > 0 && !deaf {
		timer := time.AfterFunc(time.Until(g.disk.Job.Started.Add(p.Job.TTL)), func() { cancel(errTimeout) })
		defer timer.Stop()
	}
	heed := func(reply reportReply) {
		if reply.Cancel && !deaf {
			cancel(errCancelled)
		}
	}
	beatCtx, quiet := context.WithCancel(ctx)
	var beats sync.WaitGroup
	beaten := make(chan struct{})
	beat := sync.OnceFunc(func() { close(beaten) })
	r := &run{guest: g, payload: p, quiet: quiet, beaten: beaten}
	reply, err := g.tell(ctx, report{Job: g.disk.Job.ID, Kind: stage, Stage: "agent"}, true)
	if err == nil {
		heed(reply)
		beats.Go(func() { g.beat(beatCtx, func(reply reportReply) { beat(); heed(reply) }) })
		err = r.all(ctx, actions)
	}
	cause := context.Cause(ctx)
	cancel(nil)
	quiet()
	beats.Wait()
	switch {
	case errors.Is(cause, errTimeout):
		return "timeout", 124, errTimeout.Error()
	case errors.Is(cause, errCancelled):
		return "cancelled", 130, "the job was cancelled"
	case err != nil:
		return "failed", 1, err.Error()
	case r.exit == 124:
		return "timeout", 124, "the agent ended with code 124"
	case r.exit != 0:
		return "failed", r.exit, fmt.Sprintf("the agent ended with code %d", r.exit)
	}
	return "completed", 0, ""
}

// beat gives signs of life and passes on what the host answers. One that does
// not arrive is made up for by the next.
func (g *guest) beat(ctx context.Context, heed func(reportReply)) {
	for pause(ctx, g.Heartbeat) == nil {
		reply, _ := g.tell(ctx, report{Job: g.disk.Job.ID, Kind: heartbeat}, false)
		heed(reply)
	}
}

// hand uploads what the job left and gives the final report.
func (g *guest) hand(ctx context.Context, j *job) error {
	res := g.disk.Job.Result
	final := report{Job: j.ID, Kind: finished, Status: res.Status, ExitCode: res.ExitCode, Message: res.Message, Uploaded: true}
	if _, err := g.tell(ctx, report{Job: j.ID, Kind: stage, Stage: "upload"}, true); err != nil {
		return err
	}
	content, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	if err := g.upload(ctx, j.ID, "report.json", content); err != nil {
		if !errors.Is(err, errRefused) {
			return err
		}
		final.Status, final.Uploaded, final.Message = "failed", false, "upload: "+err.Error()
	}
	if _, err := g.tell(ctx, final, true); err != nil {
		return err
	}
	g.disk.Job.Told = true
	g.print(ctx, "agent-runner: job %s %s", j.ID, final.Status)
	return g.save(ctx)
}

// upload sends one file. Too large is refused as well.
func (g *guest) upload(ctx context.Context, jobID, path string, content []byte) error {
	status, _, err := g.insist(ctx, request{
		op: "guest.upload", method: http.MethodPost, path: uploadPath, query: url.Values{"job": {jobID}, "path": {path}},
		body: content, kind: "application/octet-stream",
		accept: []int{http.StatusRequestEntityTooLarge, http.StatusInsufficientStorage},
	})
	if err == nil && status/100 != 2 {
		return fmt.Errorf("%w %s: status %d", errRefused, path, status)
	}
	return err
}

// power is the guest's own doing: it turns its machine off or boots it again.
func (g *guest) power(ctx context.Context, on bool) error {
	return g.World.Change(ctx, func(tx *world.Tx) error {
		vm, found, err := tx.VM(g.vm.VMID)
		if err != nil || !found || vm.Boot != g.vm.Boot {
			return err
		}
		e := world.Effect{Op: "guest.poweroff", Subject: strconv.FormatUint(uint64(vm.VMID), 10), Owner: vm.Owner}
		if on {
			e.Op = "guest.reboot"
			vm.Boot++
		} else {
			vm.Power, vm.Started = hypervisor.PowerOff, time.Time{}
		}
		tx.Record(e)
		return tx.PutVM(vm)
	})
}
