package plugindoc

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/version"
)

// Find gives the binary of a plugin: a path as it is; else that of the block of
// this kind or name in the configuration file, where that can be read; else
// agentlab-plugin-NAME in its plugin_dir, or beside this program.
func Find(file, nameOrPath string) (string, error) {
	if strings.Contains(nameOrPath, "/") {
		return nameOrPath, nil
	}
	cfg, _ := config.Inspect(file)
	if cfg == nil {
		cfg, _ = config.Parse(nil, "")
	}
	for _, b := range cfg.Plugins {
		if b.Name == nameOrPath || b.Kind == nameOrPath {
			return cfg.Binary(b), nil
		}
	}
	places := []string{cfg.Binary(config.PluginBlock{Name: nameOrPath})}
	if self, err := os.Executable(); err == nil {
		places = append(places, filepath.Join(filepath.Dir(self), plugin.BinaryPrefix+nameOrPath))
	}
	for _, path := range places {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", fault.New(fault.NotFound, "there is no plugin %q: no block in %s, nor %s", nameOrPath, file, strings.Join(places, " or ")).
		WithHint("name the path of its binary, as ./%s%s, or with --file the configuration of its daemon; that of a dev daemon is config.hcl in its --dev-dir",
			plugin.BinaryPrefix, nameOrPath)
}

// Ask has the binary tell what it is. It is started for that, for a moment and
// without any privileges.
func Ask(ctx context.Context, path string) (launch.Asked, error) {
	run, err := os.MkdirTemp("/tmp", "agentlab") // sockets need a short path
	if err != nil {
		return launch.Asked{}, fault.New(fault.Unavailable, "make a folder for a socket: %w", err)
	}
	defer func() { _ = os.RemoveAll(run) }()
	return launch.Ask(ctx, launch.Spec{
		Path: path, Kind: "binary", Name: filepath.Base(path), RunDir: run, Log: hclog.NewNullLogger(),
		Env: []string{"PATH=" + os.Getenv("PATH"), "LANG=C", "TMPDIR=/tmp"},
	}, version.String())
}
