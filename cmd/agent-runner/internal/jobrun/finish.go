package jobrun

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/guestclient"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/repotask"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/upload"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Bounds of the work after the agent.
const (
	changesTimeout = 5 * time.Minute
	uploadPatience = 10 * time.Minute
)

// finish uploads what the job leaves and reports its outcome. shipped gets the
// end of the log's way to the host. A job whose upload failed is not completed.
func (x *run) finish(ctx context.Context, shipped <-chan error) error {
	x.pulse.stage("upload")
	result := x.result()
	patience := x.UploadPatience
	if patience == 0 {
		patience = uploadPatience
	}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	x.collectChanges(bounded, &result)
	err := x.uploadFiles(bounded, &result)
	if err != nil {
		x.say("artifacts are not complete: %s", withHint(err))
	}
	if x.journal.Outcome.Message != "" {
		x.say("%s", x.journal.Outcome.Message)
	}
	err = errors.Join(err, x.log.End(), x.awaitLog(bounded, shipped))
	if ctx.Err() != nil {
		return fmt.Errorf("finish job: %w", context.Cause(ctx))
	}
	if err != nil {
		x.degrade(&result, err)
	}
	if lost := x.uploadResult(bounded, result); lost != nil {
		x.degrade(&result, lost)
		err = errors.Join(err, lost)
	}
	return x.report(ctx, result, err == nil)
}

// result is the report so far.
func (x *run) result() guestapi.JobResult {
	out := x.journal.Outcome
	return guestapi.JobResult{
		Job: x.job.ID, Status: out.Status, ExitCode: out.ExitCode, Message: x.Redactor.String(out.Message),
		StartedAt: x.journal.StartedAt, DurationSeconds: x.journal.EndedAt.Sub(x.journal.StartedAt).Round(time.Millisecond).Seconds(),
		BaseCommit: x.journal.Base, Commit: x.journal.Head,
	}
}

// degrade makes a completed job a failed one because of err.
func (x *run) degrade(result *guestapi.JobResult, err error) {
	x.Log.Error("upload is not complete", "err", x.Redactor.String(err.Error()))
	if result.Status == statusCompleted {
		result.Status, result.ExitCode = statusFailed, exitOurs
		result.Message = x.Redactor.String("the job's artifacts could not be uploaded: " + withHint(err))
	}
}

// collectChanges bundles the job's commits. That the repository is unusable is
// the agent's doing and said in the log; it is no failure of the upload.
func (x *run) collectChanges(ctx context.Context, result *guestapi.JobResult) {
	if x.journal.Base == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, changesTimeout)
	defer cancel()
	dir := x.Layout.JobDir(x.job.ID)
	bundle := filepath.Join(dir, guestapi.ArtifactChanges)
	if err := os.Remove(bundle); err != nil && !errors.Is(err, os.ErrNotExist) {
		x.say("commits cannot be brought back: %v", err)
		return
	}
	known, err := repotask.Secrets(x.Secrets)
	var res repotask.Result
	if err == nil {
		res, err = x.git(x.journal.RepoDir).Run(ctx, repotask.Call{
			Action: repotask.Changes, Dir: x.journal.RepoDir, Base: x.journal.Base, Out: bundle, Result: filepath.Join(dir, resultName),
		}, known)
	}
	if err != nil {
		x.say("commits cannot be brought back: %s", withHint(err))
		return
	}
	result.Commit, result.Commits = res.Changes.Head, res.Changes.Commits
	if result.ChangesFlagged = flag(res); result.ChangesFlagged != "" {
		result.Flagged = append(result.Flagged, guestapi.ArtifactChanges)
		x.say("%s %s", guestapi.ArtifactChanges, result.ChangesFlagged)
	}
}

// flag says what the search through the commits found, "" for nothing.
func flag(res repotask.Result) string {
	var places []string
	for _, l := range res.Leaks.Named {
		if l.Commit != "" {
			l.Where = fmt.Sprintf("commit %.12s, %s", l.Commit, l.Where)
		}
		places = append(places, l.Where)
	}
	if more := res.Leaks.Count - len(places); more > 0 {
		places = append(places, fmt.Sprintf("and %d more", more))
	}
	switch {
	case len(places) > 0:
		return guestapi.FlaggedSecret + ": " + strings.Join(places, "; ")
	case res.Unread != "":
		return "was not searched for secrets: " + res.Unread
	}
	return ""
}

// uploadFiles uploads the bundle of commits and every file in the artifacts
// directory, and notes which of them hold a secret.
func (x *run) uploadFiles(ctx context.Context, result *guestapi.JobResult) error {
	own, err := os.OpenRoot(x.Layout.JobDir(x.job.ID))
	if err != nil {
		return fmt.Errorf("open job directory: %w", err)
	}
	defer own.Close()
	var bundle error // one that is too large takes nothing else with it
	if _, err := own.Lstat(guestapi.ArtifactChanges); err == nil {
		bundle = x.sender(own, result.ChangesFlagged).Send(ctx, guestapi.ArtifactChanges, guestapi.ArtifactChanges)
	}
	root, err := own.OpenRoot(artifactsName)
	if errors.Is(err, os.ErrNotExist) {
		return bundle // the agent removed it
	}
	if err != nil {
		return errors.Join(bundle, fmt.Errorf("open artifacts: %w", err))
	}
	defer root.Close()
	return errors.Join(bundle, x.uploadBelow(ctx, root, result))
}

// uploadBelow uploads the files in the artifacts directory, as many as there may
// be. One whose name the host does not take is no failure, as a link is none.
func (x *run) uploadBelow(ctx context.Context, root *os.Root, result *guestapi.JobResult) error {
	files, passed, err := upload.List(root)
	if passed > 0 {
		x.say("%d links or special files in the artifacts directory were passed over", passed)
	}
	errs := []error{err}
	for _, f := range files {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		name := artifactPath(f.Path)
		shown := x.Redactor.String(name) // before quoting changes it
		err := x.sender(root, "").Send(ctx, f.Path, name)
		if e, ok := errors.AsType[*fault.Error](err); ok && (e.Class == fault.Invalid || e.Class == fault.Conflict) { // its name
			x.say("artifact %q was passed over: %s", shown, e)
			continue
		}
		errs = append(errs, err)
		if found, err := upload.Holds(root, f.Path, x.Redactor); err == nil && found {
			result.Flagged = append(result.Flagged, name)
			x.say("artifact %q holds a secret", shown)
		}
	}
	return errors.Join(errs...)
}

// artifactPath keeps the agent's files and directories apart from the runner's
// own files.
func artifactPath(path string) string {
	first, _, _ := strings.Cut(path, "/")
	if slices.Contains([]string{guestapi.ArtifactLog, guestapi.ArtifactReport, guestapi.ArtifactArchive, guestapi.ArtifactChanges}, first) {
		return artifactsName + "/" + path
	}
	return path
}

func (x *run) sender(root *os.Root, flagged string) upload.Sender {
	put := func(ctx context.Context, path string, body io.Reader, size int64) (guestapi.UploadReply, error) {
		return x.Host.Upload(ctx, guestapi.Upload{Job: x.job.ID, Path: path, Flagged: flagged, Size: size}, body)
	}
	return upload.Sender{Root: root, Limit: x.job.UploadMaxBytes, Put: put}
}

// awaitLog waits until the host has the whole log. A log beyond its quota has
// failed the job already.
func (x *run) awaitLog(ctx context.Context, shipped <-chan error) error {
	select {
	case err := <-shipped:
		select {
		case <-x.log.Exceeded():
			return nil
		default:
		}
		if err != nil {
			return fmt.Errorf("upload log: %w", err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("upload log: %w", ctx.Err())
	}
}

func (x *run) uploadResult(ctx context.Context, result guestapi.JobResult) error {
	b, err := json.MarshalIndent(result, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	b = append(x.Redactor.Bytes(b), '\n') // also names of files may hold a secret
	err = guestclient.Retry(ctx, nil, func(ctx context.Context) error {
		_, err := x.Host.Upload(ctx, guestapi.Upload{Job: x.job.ID, Path: guestapi.ArtifactReport, Size: int64(len(b))}, bytes.NewReader(b))
		return err
	})
	if err != nil {
		return fmt.Errorf("upload %s: %w", guestapi.ArtifactReport, err)
	}
	return nil
}

// report says the last word, however long the host takes to hear it.
func (x *run) report(ctx context.Context, result guestapi.JobResult, uploaded bool) error {
	err := guestclient.Retry(ctx, nil, func(ctx context.Context) error {
		_, err := x.Host.Report(ctx, guestapi.Report{
			Job: x.job.ID, Kind: guestapi.ReportFinished, Status: result.Status, ExitCode: result.ExitCode,
			Commit: result.Commit, Message: result.Message, Uploaded: uploaded,
		})
		return err
	})
	if ctx.Err() != nil {
		return fmt.Errorf("report outcome: %w", context.Cause(ctx))
	}
	if err != nil {
		x.Log.Error("host does not take the report", "err", err) // nothing else can be done
	}
	x.journal.Phase = phaseReported
	return x.journal.save(x.Layout)
}
