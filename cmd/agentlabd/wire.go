package main

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/config/check"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/pluginhost"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/version"
)

func blocks(cfg *config.Config) []pluginhost.Block {
	var out []pluginhost.Block
	for _, b := range cfg.Plugins {
		out = append(out, check.Block(b))
	}
	return out
}

func hostInfo(cfg *config.Config, uuid string, dev bool) api.Host {
	return api.Host{
		Version: version.String(), HostUUID: uuid, AgentSubnet: cfg.AgentSubnet.String(), Dev: dev,
		LogFile: cfg.LogFile, SSHKey: cfg.SSHPublicKeyPath,
	}
}

// hostNetwork is the host's side of the agent network.
func hostNetwork(cfg *config.Config) network.Host {
	listen := cfg.GuestListen
	return network.Host{
		Bridge: cfg.AgentBridge, Subnet: cfg.AgentSubnet.String(),
		Address: listen.Addr().String(), GuestTCPPorts: []uint16{listen.Port()},
	}
}

// profiles reads the profiles anew at each question: they are few and small,
// and an edited one counts at once.
type profiles struct{ settings *settings }

// Names implements control.Profiles.
func (p profiles) Names() []string {
	loaded, _ := config.LoadProfiles(p.settings.now().ProfilesDir)
	return slices.Sorted(maps.Keys(loaded))
}

// Spec implements control.Profiles.
func (p profiles) Spec(name string) (lab.Spec, error) {
	cfg := p.settings.now()
	loaded, diags := config.LoadProfiles(cfg.ProfilesDir)
	profile, ok := loaded[name]
	if !ok {
		if wrong := config.ProfileMistakes(cfg.ProfilesDir, name); len(wrong) > 0 {
			return lab.Spec{}, fault.New(fault.Invalid, "profile %q has mistakes: %s", name, wrong.Few(3)).
				WithHint("correct them; agentlab profile check FILE tells all, and the next request reads the file again")
		}
		hint := "there is no usable profile in " + cfg.ProfilesDir
		if len(loaded) > 0 {
			hint = "there are: " + strings.Join(slices.Sorted(maps.Keys(loaded)), ", ")
		}
		if diags.HasErrors() {
			hint += "; others have mistakes: agentlab profile check tells"
		}
		return lab.Spec{}, fault.New(fault.NotFound, "there is no profile %q", name).WithHint("%s", hint)
	}
	key, err := operatorKey(cfg)
	if err != nil {
		return lab.Spec{}, err
	}
	return profile.Spec(cfg, key), nil
}

// Problems implements control.Profiles.
func (p profiles) Problems() []string {
	cfg := p.settings.now()
	_, diags := config.LoadProfiles(cfg.ProfilesDir)
	problems := diags.Lines()
	if _, err := operatorKey(cfg); err != nil {
		problems = append(problems, err.Error())
	}
	return problems
}

func operatorKey(cfg *config.Config) (string, error) {
	if cfg.SSHPublicKeyPath == "" {
		return "", nil
	}
	b, err := os.ReadFile(cfg.SSHPublicKeyPath)
	if err != nil {
		return "", fault.New(fault.Precondition, "read ssh_public_key_path: %w", err).
			WithHint("make a key with ssh-keygen -t ed25519, or remove ssh_public_key_path from %s", cfg.File)
	}
	return strings.TrimSpace(string(b)), nil
}

// dialPatience covers the time between a guest's hello and its sshd.
const dialPatience = 20 * time.Second

// dialSandbox connects to a sandbox from the daemon's side of the network. A
// port that refuses is tried again: a guest is ready before all its programs
// are.
func dialSandbox(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	d := net.Dialer{Timeout: 5 * time.Second}
	for {
		conn, err := d.DialContext(ctx, "tcp", addr.String())
		if err == nil {
			return conn, nil
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			select {
			case <-ctx.Done():
			case <-time.After(250 * time.Millisecond):
				continue
			}
		}
		return nil, fault.New(fault.Unavailable, "connect to %s: %w", addr, err).WithHint("the guest may still be booting, or its sshd is not running")
	}
}
