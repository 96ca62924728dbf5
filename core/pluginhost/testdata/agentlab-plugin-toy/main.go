// Command agentlab-plugin-toy is a plugin for the tests of pluginhost.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secret"
	"github.com/agentlab/agentlab/sdk/secrets"
)

type config struct {
	Folder string       `json:"folder"`
	Token  secret.Value `json:"token"`
	Limit  int64        `json:"limit"`
	Mode   string       `json:"mode"`
	Keys   []string     `json:"keys"`
	Dir    string       `json:"dir"`
}

func main() {
	plugin.Serve(plugin.Plugin{
		Name: "toy", Version: "1.2.3", Description: "For tests.", Kinds: []plugin.Kind{plugin.Secrets},
		Schema: &plugin.Schema{Version: 1, Block: plugin.Block{Attributes: []plugin.Attribute{
			{Name: "folder", Type: plugin.String, Required: true},
			{Name: "token", Type: plugin.String, Sensitive: true},
			{Name: "limit", Type: plugin.Number, Default: 10, Min: plugin.Limit(1), Max: plugin.Limit(100)},
			{Name: "mode", Type: plugin.String, OneOf: []string{"plain", "broken", "meet"}},
			{Name: "keys", Type: plugin.List(plugin.String)},
			{Name: "dir", Type: plugin.String, Deprecation: "Use folder instead."},
		}}},
		Validate: func(_ context.Context, cfg json.RawMessage) []plugin.Diagnostic {
			var c config
			if err := plugin.Decode(cfg, &c); err != nil {
				return plugin.Remarks(err)
			}
			for i, key := range c.Keys {
				if strings.HasPrefix(key, "bad") {
					return []plugin.Diagnostic{{
						Summary: "key is bad, said " + c.Token.Reveal(), Path: plugin.Path{plugin.Attr("keys"), plugin.Index(i)},
					}}
				}
			}
			return nil
		},
		Configure: configure, Exclusive: alone(),
	})
}

// alone reports whether the binary was copied to a name that says so. Such a
// plugin takes what only one process can have.
func alone() bool { return strings.HasSuffix(os.Args[0], "-alone") }

func configure(ctx context.Context, host plugin.HostContext, cfg json.RawMessage, log hclog.Logger) (plugin.Instance, error) {
	var c config
	if err := plugin.Decode(cfg, &c); err != nil {
		return plugin.Instance{}, err
	}
	log.Info("talks too much", "token", c.Token.Reveal())
	if c.Mode == "broken" {
		return plugin.Instance{}, fault.New(fault.Unavailable, "server refused %s", c.Token.Reveal())
	}
	if alone() {
		if _, err := net.Listen("unix", "@"+host.StateDir); err != nil {
			return plugin.Instance{}, fault.New(fault.Exists, "listen: %w", err)
		}
	}
	if c.Mode == "meet" {
		if err := c.meet(ctx); err != nil {
			return plugin.Instance{}, err
		}
	}
	return plugin.Instance{Service: secrets.Service(driver{c, host}), Health: c.health}, nil
}

// meet returns when another process is being configured with the same folder.
func (c config) meet(ctx context.Context) error {
	if err := os.WriteFile(filepath.Join(c.Folder, strconv.Itoa(os.Getpid())), nil, 0o644); err != nil {
		return fault.New(fault.Denied, "tell the other: %w", err)
	}
	for {
		if here, err := os.ReadDir(c.Folder); err == nil && len(here) > 1 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Timeout, "wait for the other: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// health is what a file in the folder says.
func (c config) health(context.Context) plugin.Health {
	if why, err := os.ReadFile(filepath.Join(c.Folder, "unwell")); err == nil {
		return plugin.Health{State: plugin.Degraded, Message: string(why)}
	}
	return plugin.Health{State: plugin.Ready}
}

type driver struct {
	config config
	host   plugin.HostContext
}

func (d driver) List(context.Context) ([]string, error) { return os.Environ(), nil }

func (d driver) Open(ctx context.Context, bundle, _ string) (secrets.Bundle, error) {
	if bundle == "hang" {
		<-ctx.Done()
		return secrets.Bundle{}, ctx.Err()
	}
	if bundle == "crash" {
		go panic("boom " + d.config.Token.Reveal())
		<-ctx.Done()
	}
	if bundle == "deadline" {
		at, ok := ctx.Deadline()
		if !ok {
			return secrets.Bundle{}, errors.New("no deadline")
		}
		return secrets.Bundle{Version: time.Until(at).Round(time.Second).String()}, nil
	}
	raw, err := json.Marshal(map[string]any{"folder": d.config.Folder, "limit": d.config.Limit, "keys": d.config.Keys})
	return secrets.Bundle{Document: secret.New(string(raw)), Version: d.host.StateDir + " " + d.host.HostUUID}, err
}

func (d driver) Describe(context.Context, string) (secrets.Description, error) {
	return secrets.Description{}, fault.New(fault.NotFound, "no such bundle").WithHint("make one")
}
