package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
)

// longPoll is how long one Wait request stays open at the daemon.
const longPoll = 20 * time.Second

func get[T any](ctx context.Context, c *Client, path string, q url.Values) (T, error) {
	var out T
	err := c.call(ctx, http.MethodGet, path, q, nil, &out)
	return out, err
}

func list[T any](ctx context.Context, c *Client, path string, q url.Values) ([]T, error) {
	l, err := get[api.List[T]](ctx, c, path, q)
	return l.Items, err
}

// Health asks whether the daemon answers at all.
func (c *Client) Health(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, "/healthz", nil, nil, nil)
}

// Status is the daemon at a glance.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	return get[api.Status](ctx, c, "/v1/status", nil)
}

// Host describes the daemon's host.
func (c *Client) Host(ctx context.Context) (api.Host, error) {
	return get[api.Host](ctx, c, "/v1/host", nil)
}

// HostFindings has the daemon's plugins look at their host.
func (c *Client) HostFindings(ctx context.Context) ([]api.Finding, error) {
	return list[api.Finding](ctx, c, "/v1/host/findings", nil)
}

// Plugins lists the configured plugins.
func (c *Client) Plugins(ctx context.Context) ([]api.Plugin, error) {
	return list[api.Plugin](ctx, c, "/v1/plugins", nil)
}

// CheckPlugins is Plugins, but has the daemon ask them how they are now.
func (c *Client) CheckPlugins(ctx context.Context) ([]api.Plugin, error) {
	return list[api.Plugin](ctx, c, "/v1/plugins", url.Values{"check": {"true"}})
}

// restartLimit is how long a plugin's restart may take.
const restartLimit = 2*time.Minute + 10*time.Second

// RestartPlugin replaces a plugin's process by a new one, and returns when that
// serves. On an error the old one does.
func (c *Client) RestartPlugin(ctx context.Context, kindOrName string) (api.PluginInfo, error) {
	var out api.PluginInfo
	err := c.callWithin(ctx, restartLimit, http.MethodPost, "/v1/plugins/"+url.PathEscape(kindOrName)+"/restart", nil, nil, &out)
	return out, err
}

// Plugin is one plugin by its kind or name.
func (c *Client) Plugin(ctx context.Context, kindOrName string) (api.PluginInfo, error) {
	return get[api.PluginInfo](ctx, c, "/v1/plugins/"+url.PathEscape(kindOrName), nil)
}

// Templates lists what sandboxes are made from; asks the hypervisor plugin.
func (c *Client) Templates(ctx context.Context) ([]api.Template, error) {
	return list[api.Template](ctx, c, "/v1/templates", nil)
}

// warmLimit is how long a memory template's making may take.
const warmLimit = 10*time.Minute + 10*time.Second

// WarmTemplate returns when sandboxes of the size start from memory.
func (c *Client) WarmTemplate(ctx context.Context, name string, size api.TemplateWarm) (api.Template, error) {
	var out api.Template
	err := c.callWithin(ctx, warmLimit, http.MethodPost, "/v1/templates/"+url.PathEscape(name)+"/warm", nil, size, &out)
	return out, err
}

// Profiles lists the usable profiles, by name, and why others are not.
func (c *Client) Profiles(ctx context.Context) (api.Profiles, error) {
	return get[api.Profiles](ctx, c, "/v1/profiles", nil)
}

// CheckProfile asks whether all is there that the profile names. What is wrong,
// an unknown name too, is in the answer.
func (c *Client) CheckProfile(ctx context.Context, name string) (api.ProfileCheck, error) {
	return get[api.ProfileCheck](ctx, c, "/v1/profiles/"+url.PathEscape(name)+"/check", nil)
}

// OperationQuery narrows Operations; the zero value lists the newest.
type OperationQuery struct {
	SandboxID string // or its VMID or name
	JobID     string
	Open      bool // only those that have not ended
	Limit     int  // 0 is 100
}

// Operations lists operations, newest first.
func (c *Client) Operations(ctx context.Context, q OperationQuery) ([]api.Operation, error) {
	v := url.Values{}
	setString(v, "sandbox", q.SandboxID)
	setString(v, "job", q.JobID)
	setInt(v, "limit", int64(q.Limit))
	if q.Open {
		v.Set("open", "true")
	}
	return list[api.Operation](ctx, c, "/v1/operations", v)
}

// Operation is one operation by id.
func (c *Client) Operation(ctx context.Context, id string) (api.Operation, error) {
	return get[api.Operation](ctx, c, "/v1/operations/"+url.PathEscape(id), nil)
}

// CancelOperation asks it to stop and returns at once; WaitOperation tells its
// end. fault.Precondition: it has ended, or is not of a kind that can stop.
func (c *Client) CancelOperation(ctx context.Context, id string) (api.Accepted, error) {
	var out api.Accepted
	err := c.call(ctx, http.MethodPost, "/v1/operations/"+url.PathEscape(id)+"/cancel", nil, nil, &out)
	return out, err
}

// WaitOperation returns the operation once it has ended, well or not. It
// outlives restarts of the daemon that are shorter than Options.Patience.
func (c *Client) WaitOperation(ctx context.Context, id string) (api.Operation, error) {
	return wait(ctx, c, "/v1/operations/"+url.PathEscape(id), func(op api.Operation) bool {
		return lab.OperationState(op.State).Ended()
	})
}

// WaitJob returns the job once it has ended, well or not. It outlives restarts
// of the daemon that are shorter than Options.Patience.
func (c *Client) WaitJob(ctx context.Context, id string) (api.Job, error) {
	return wait(ctx, c, "/v1/jobs/"+url.PathEscape(id), func(j api.Job) bool {
		return lab.JobState(j.State).Ended()
	})
}

func wait[T any](ctx context.Context, c *Client, path string, ended func(T) bool) (T, error) {
	pace := retry{c: c}
	q := url.Values{"wait": {longPoll.String()}}
	for {
		var got T
		err := c.callWithin(ctx, longPoll+c.timeout, http.MethodGet, path, q, nil, &got)
		switch {
		case err == nil && ended(got):
			pace.ok()
			return got, nil
		case err == nil && ctx.Err() == nil:
			pace.ok()
			continue
		}
		if err = pace.again(ctx, err); err != nil {
			return got, err
		}
	}
}
