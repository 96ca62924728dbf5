package main

import (
	"context"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/sdk/fault"
)

// takeBackTimeout bounds what is done for a job that there will not be.
const takeBackTimeout = 5 * time.Second

// acceptable asks whether the job would be refused before a local repository
// makes its way to the daemon. A daemon that cannot say is asked with the job.
func (r *jobRun) acceptable(ctx context.Context, c *client.Client) error {
	if isURL(r.repo) {
		return nil
	}
	req := api.JobCheck{JobCreate: r.req, LocalRepo: true}
	if _, err := r.look(ctx, &req); err != nil {
		return err
	}
	_, err := c.ValidateJob(ctx, req)
	switch fault.ClassOf(err) {
	case fault.Unavailable, fault.Timeout, fault.Internal:
		return ctx.Err()
	}
	return err
}

// takeBack removes the uploaded repository when there is no job. Where that
// fails, or a job took it after all, the daemon does what is right.
func (r *jobRun) takeBack(ctx context.Context, c *client.Client) {
	if r.req.RepoID == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBackTimeout)
	defer cancel()
	_ = c.DeleteRepo(ctx, r.req.RepoID)
}
