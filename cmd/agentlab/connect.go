package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// clientFile is client.json as far as this command reads it.
type clientFile struct {
	Endpoint string       `json:"endpoint"`
	Token    secret.Value `json:"token"`
}

// connect finds the daemon: flags, then the environment, then client.json, then
// the local socket, and where there is none that of a dev daemon.
func connect(env *cli.Env) (*client.Client, error) {
	o, err := target(env.Global)
	if err != nil {
		return nil, err
	}
	o.Timeout = time.Duration(env.Global.Timeout)
	c, err := client.New(o)
	if err != nil {
		return nil, err
	}
	c.Watch(func(away bool) { fmt.Fprintln(env.Err, "daemon", presence(away)) })
	return c, nil
}

// presence says what has become of a daemon that is needed.
func presence(away bool) string {
	if away {
		return "away, waiting"
	}
	return "back"
}

func target(g cli.Global) (client.Options, error) {
	token := secret.New(cmp.Or(g.Token, os.Getenv("AGENTLAB_TOKEN")))
	switch {
	case g.Endpoint != "" && g.Socket != "":
		return client.Options{}, fault.New(fault.Invalid, "give --socket or --endpoint, not both")
	case g.Socket != "":
		return client.Options{Socket: g.Socket}, nil
	case g.Endpoint != "":
		return client.Options{Endpoint: g.Endpoint, Token: token}, nil
	case os.Getenv("AGENTLAB_ENDPOINT") != "":
		return client.Options{Endpoint: os.Getenv("AGENTLAB_ENDPOINT"), Token: token}, nil
	case os.Getenv("AGENTLAB_SOCKET") != "":
		return client.Options{Socket: os.Getenv("AGENTLAB_SOCKET")}, nil
	}
	f, err := readClientFile(g.Config)
	if err != nil {
		return client.Options{}, err
	}
	if f.Endpoint != "" {
		if token.Empty() {
			token = f.Token
		}
		return client.Options{Endpoint: f.Endpoint, Token: token}, nil
	}
	return client.Options{Socket: localSocket(client.DefaultSocket, client.DevSocket)}, nil
}

// localSocket is the installed daemon's, unless only the dev daemon's is there.
func localSocket(installed, dev string) string {
	if _, err := os.Stat(installed); err != nil {
		if _, err := os.Stat(dev); err == nil {
			return dev
		}
	}
	return installed
}

// readClientFile reads client.json; one that was not asked for may be missing.
func readClientFile(path string) (clientFile, error) {
	asked := path != ""
	if !asked {
		dir, err := os.UserConfigDir()
		if err != nil {
			return clientFile{}, nil // no home, no file
		}
		path = filepath.Join(dir, "agentlab", "client.json")
	}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !asked:
		return clientFile{}, nil
	case err != nil:
		return clientFile{}, fault.New(fault.Invalid, "read client configuration: %w", err)
	}
	var f clientFile
	if err := json.Unmarshal(b, &f); err != nil {
		return clientFile{}, fault.New(fault.Invalid, "read client configuration %s: %w", path, err)
	}
	return f, nil
}
