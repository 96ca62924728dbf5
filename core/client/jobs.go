package client

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// UploadRepo sends a repository archive (core/gitrepo) and returns what to put
// into JobCreate.RepoID. It lasts as long as ctx; more than api.MaxRepo bytes is
// fault.Exhausted.
func (c *Client) UploadRepo(ctx context.Context, archive io.Reader) (api.Repo, error) {
	var out api.Repo
	h := http.Header{"Content-Type": {"application/x-tar"}}
	// The body's own error tells more than the broken call it causes.
	body := &watchedReader{r: archive}
	resp, err := c.send(ctx, http.MethodPost, "/v1/repos", nil, body, h)
	if err != nil {
		if body.err != nil {
			return out, body.err
		}
		return out, err
	}
	defer resp.Body.Close()
	return out, decode(resp.Body, &out)
}

// DeleteRepo removes an upload that no job took. fault.Precondition: one did.
func (c *Client) DeleteRepo(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/v1/repos/"+url.PathEscape(id), nil, nil, nil)
}

type watchedReader struct {
	r   io.Reader
	err error
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// CreateJob asks for a job in a new sandbox and returns at once; follow it with
// WaitJob, FollowLog or Events. A lost answer makes no second job.
func (c *Client) CreateJob(ctx context.Context, req api.JobCreate) (api.Accepted, error) {
	req.ID = cmp.Or(req.ID, lab.NewID("job"))
	return c.create(ctx, "/v1/jobs", "agentlab job show "+req.ID, req)
}

// ValidateJob checks a job as CreateJob does, and makes nothing.
func (c *Client) ValidateJob(ctx context.Context, req api.JobCheck) (api.JobPlan, error) {
	var out api.JobPlan
	err := c.call(ctx, http.MethodPost, "/v1/jobs/validate", nil, req, &out)
	return out, err
}

// JobQuery narrows Jobs; the zero value lists the newest.
type JobQuery struct {
	SandboxID string
	Limit     int // 0 is 100
}

// Jobs lists jobs, newest first.
func (c *Client) Jobs(ctx context.Context, q JobQuery) ([]api.Job, error) {
	v := url.Values{}
	setString(v, "sandbox", q.SandboxID)
	setInt(v, "limit", int64(q.Limit))
	return list[api.Job](ctx, c, "/v1/jobs", v)
}

// Job is one job by id, with its artifacts and its newest eventsTail events.
func (c *Client) Job(ctx context.Context, id string, eventsTail int) (api.Job, error) {
	v := url.Values{}
	setInt(v, "events_tail", int64(eventsTail))
	return get[api.Job](ctx, c, "/v1/jobs/"+url.PathEscape(id), v)
}

// CancelJob asks the job to stop and returns at once. A job that has ended is
// fault.Precondition.
func (c *Client) CancelJob(ctx context.Context, id string) (api.Accepted, error) {
	var out api.Accepted
	err := c.call(ctx, http.MethodPost, "/v1/jobs/"+url.PathEscape(id)+"/cancel", nil, nil, &out)
	return out, err
}

// Artifacts lists what a job left behind, by path.
func (c *Client) Artifacts(ctx context.Context, jobID string) ([]api.Artifact, error) {
	return list[api.Artifact](ctx, c, "/v1/jobs/"+url.PathEscape(jobID)+"/artifacts", nil)
}

// Artifact opens one file of a job. The caller closes it.
func (c *Client) Artifact(ctx context.Context, jobID, path string) (io.ReadCloser, error) {
	parts := strings.Split(path, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return c.download(ctx, "/v1/jobs/"+url.PathEscape(jobID)+"/artifacts/"+strings.Join(parts, "/"), nil)
}

// ArtifactArchive opens all files of a job as one tar.gz. The caller closes it.
func (c *Client) ArtifactArchive(ctx context.Context, jobID string) (io.ReadCloser, error) {
	return c.download(ctx, "/v1/jobs/"+url.PathEscape(jobID)+"/artifacts.tar.gz", nil)
}

func (c *Client) download(ctx context.Context, path string, q url.Values) (io.ReadCloser, error) {
	resp, err := c.open(ctx, path, q, nil)
	if err != nil {
		return nil, err
	}
	return &download{ReadCloser: resp.Body, c: c}, nil
}

// download names a broken connection in words.
type download struct {
	io.ReadCloser
	c *Client
}

func (d *download) Read(p []byte) (int, error) {
	n, err := d.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = d.c.connectError(err)
	}
	return n, err
}

// LogQuery says which part of a job's log is wanted; the zero value is all of
// what there is.
type LogQuery struct {
	Offset int64 // bytes from the beginning
	Tail   int   // only the last lines, at most 100000; wins over Offset
}

func (q LogQuery) values() url.Values {
	v := url.Values{}
	setInt(v, "offset", q.Offset)
	setInt(v, "tail", int64(q.Tail))
	return v
}

// JobLog opens what there is of a job's log. The caller closes it.
func (c *Client) JobLog(ctx context.Context, id string, q LogQuery) (io.ReadCloser, error) {
	return c.download(ctx, "/v1/jobs/"+url.PathEscape(id)+"/log", q.values())
}

// FollowLog copies a job's log to w until the job has ended and the log is
// whole. It outlives restarts of the daemon that are shorter than
// Options.Patience, and never writes a byte twice.
func (c *Client) FollowLog(ctx context.Context, id string, q LogQuery, w io.Writer) error {
	pace := retry{c: c}
	for {
		next, writeErr, err := c.followOnce(ctx, id, q, w, pace.ok)
		if err == nil || writeErr != nil {
			return errors.Join(writeErr, err)
		}
		if next >= 0 {
			q = LogQuery{Offset: next}
		}
		if err := pace.again(ctx, err); err != nil {
			return err
		}
	}
}

// followOnce returns the offset to go on from, -1 when nothing was answered.
func (c *Client) followOnce(ctx context.Context, id string, q LogQuery, w io.Writer, ok func()) (next int64, writeErr, err error) {
	v := q.values()
	v.Set("follow", "true")
	resp, err := c.open(ctx, "/v1/jobs/"+url.PathEscape(id)+"/log", v, nil)
	if err != nil {
		return -1, nil, err
	}
	defer resp.Body.Close()
	ok()
	at, err := strconv.ParseInt(resp.Header.Get(api.LogOffsetHeader), 10, 64)
	if err != nil {
		return -1, nil, fault.New(fault.Unsupported, "the daemon does not say where its answer begins")
	}
	buf := make([]byte, 32<<10)
	for {
		n, readErr := resp.Body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return at, err, nil
			}
			at += int64(n)
		}
		switch {
		case errors.Is(readErr, io.EOF):
			return at, nil, nil
		case readErr != nil:
			return at, nil, c.connectError(readErr)
		}
	}
}
