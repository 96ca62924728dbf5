package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"slices"
	"time"

	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

const longestMessage = 4096 // bytes

var (
	commitID = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})?$`)
	stages   = regexp.MustCompile(`^[a-z][a-z-]{0,31}$`)
	statuses = []string{"completed", "failed", "timeout", "cancelled"}
)

// report takes a sign of life, a new stage or the last word about a job.
func (s *Server) report(w http.ResponseWriter, r *http.Request, sb lab.Sandbox) error {
	var rep guestapi.Report
	if err := decodeBody(w, r, &rep); err != nil {
		return err
	}
	if rep.Job == "" {
		if rep.Kind != guestapi.ReportHeartbeat {
			return fault.New(fault.Invalid, "report of kind %q names no job", oneLine(rep.Kind, 32))
		}
		if rep.Wait > 0 {
			// Left in place, it would end the call as if the guest had gone.
			_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
		}
		waits, err := s.awaitJob(r.Context(), sb, min(rep.Wait, guestapi.LongestWait))
		if err != nil {
			return err
		}
		return answer(w, http.StatusOK, guestapi.ReportReply{Fetch: waits})
	}
	j, err := s.ownJob(r.Context(), sb, rep.Job, "report")
	if err != nil {
		return err
	}
	var reply guestapi.ReportReply
	switch rep.Kind {
	case guestapi.ReportHeartbeat:
		reply.Cancel, err = s.store.JobSeen(r.Context(), j.ID, "", time.Now())
	case guestapi.ReportStage:
		if !stages.MatchString(rep.Stage) {
			return fault.New(fault.Invalid, "stage %q is not a word", oneLine(rep.Stage, 32))
		}
		if rep.Stage != j.Stage {
			err = s.callers.get(sb.Address).tell()
		}
		if err == nil {
			reply.Cancel, err = s.store.JobSeen(r.Context(), j.ID, rep.Stage, time.Now())
		}
	case guestapi.ReportFinished:
		err = s.finish(r.Context(), sb, j, rep)
	default:
		return fault.New(fault.Invalid, "report of kind %q is not known", oneLine(rep.Kind, 32))
	}
	if err != nil {
		return fmt.Errorf("record report: %w", err)
	}
	return answer(w, http.StatusOK, reply)
}

// awaitJob reports within limit whether the sandbox has a job that its runner does
// not know. It has none when it is no longer there.
func (s *Server) awaitJob(ctx context.Context, sb lab.Sandbox, limit time.Duration) (bool, error) {
	if limit <= 0 {
		return s.jobWaits(ctx, sb)
	}
	changed, stop := s.store.WatchSandbox(sb.ID)
	defer stop()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		now, err := s.store.SandboxByAddress(ctx, sb.Address)
		if errors.Is(err, fault.NotFound) || err == nil && now.ID != sb.ID {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read sandbox: %w", err)
		}
		if waits, err := s.jobWaits(ctx, now); waits || err != nil {
			return waits, err
		}
		select {
		case <-changed:
		case <-timer.C:
			return false, nil
		case <-s.ending:
			return false, nil
		case <-ctx.Done():
			return false, fault.New(fault.Unavailable, "the guest has gone: %w", ctx.Err())
		}
	}
}

// jobWaits reports whether the sandbox has a job that its runner does not know.
func (s *Server) jobWaits(ctx context.Context, sb lab.Sandbox) (bool, error) {
	if sb.JobID == "" {
		return false, nil
	}
	j, err := s.store.Job(ctx, sb.JobID)
	if err != nil {
		return false, fmt.Errorf("read job: %w", err)
	}
	return !over(j), nil
}

// finish gives the log its row and records the last word. The first one
// stands: a repeated one is answered like the first.
func (s *Server) finish(ctx context.Context, sb lab.Sandbox, j lab.Job, rep guestapi.Report) error {
	if !slices.Contains(statuses, rep.Status) {
		return fault.New(fault.Invalid, "status %q is not known", oneLine(rep.Status, 32))
	}
	if !commitID.MatchString(rep.Commit) {
		return fault.New(fault.Invalid, "commit is not a commit id")
	}
	if over(j) {
		return nil // asked before secrets are: it may be long over
	}
	red, err := s.redactor(ctx, sb)
	if err != nil {
		return err
	}
	release, err := s.holdFiles(ctx, j.ID)
	if errors.Is(err, errOver) {
		return nil
	}
	if err != nil {
		return err
	}
	defer release()
	if err := s.sealLog(ctx, j.ID); err != nil {
		return err
	}
	return s.store.JobReported(ctx, j.ID, lab.JobReport{
		Status: rep.Status, ExitCode: min(max(rep.ExitCode, -1), 255), Commit: rep.Commit,
		Message:  oneLine(red.String(rep.Message), longestMessage),
		Uploaded: rep.Uploaded, At: time.Now(),
	})
}

// sealLog records the log as an artifact. A job without output has none. The
// caller holds the job's files until the report that ends their growth.
func (s *Server) sealLog(ctx context.Context, jobID string) error {
	f, err := s.artifacts.Open(path.Join(jobID, guestapi.ArtifactLog))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.New(fault.Internal, "open log: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return fault.New(fault.Internal, "read log: %w", err)
	}
	return s.store.PutArtifact(ctx, lab.Artifact{
		JobID: jobID, Path: guestapi.ArtifactLog, Size: size, SHA256: hex.EncodeToString(sum.Sum(nil)),
		MIME: "text/plain; charset=utf-8", CreatedAt: time.Now(),
	})
}
