package assume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/card"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/channel"
)

// rehearsal is what Rehearse makes believe with; nothing in it is of anybody.
var rehearsal = seed.Input{
	Hostname: "rehearsal", SandboxID: "rehearsal", User: "agent", AuthorizedKey: "ssh-ed25519 rehearsal",
	MAC: "02:00:00:00:00:01", AddressCIDR: netip.MustParsePrefix("192.0.2.2/24"), Gateway: netip.MustParseAddr("192.0.2.1"),
	DNS: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Controller: "http://192.0.2.1",
}

// Rehearse does once, in a directory of its own, what Run will do in each copy,
// as far as that changes nothing: what a program finds out when it does a thing
// for the first time is then part of the memory that copies share.
func Rehearse(ctx context.Context, l layout.Layout) (err error) {
	root, err := os.MkdirTemp(l.Run(), "rehearsal-*")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	there := layout.Layout{Root: root}
	for path, text := range map[string]string{"/etc/passwd": "agent:x:0:0::/home/agent:/bin/sh\n", "/run/agentlab/template": ""} {
		if err := there.Write(there.At(path), []byte(text), 0o644, layout.Owner{}); err != nil {
			return fmt.Errorf("rehearse: %w", err)
		}
	}
	if err := os.MkdirAll(there.At("/home/agent"), 0o755); err != nil {
		return fmt.Errorf("rehearse: %w", err)
	}
	docs, err := seed.Render(rehearsal)
	if err != nil {
		return fmt.Errorf("rehearse: %w", err)
	}
	line, err := json.Marshal(channel.Identity{MAC: rehearsal.MAC, Seed: channel.Seed(docs), Time: time.Now()})
	if err != nil {
		return fmt.Errorf("rehearse: %w", err)
	}
	var id channel.Identity
	if err := json.Unmarshal(line, &id); err != nil {
		return fmt.Errorf("rehearse: %w", err)
	}
	out, err := Run(ctx, Config{Layout: there, Kernel: believed(l), Log: hclog.NewNullLogger()}, id, time.Now())
	if err != nil {
		return fmt.Errorf("rehearse: %w", err)
	}
	if _, err = json.Marshal(out); err != nil {
		return fmt.Errorf("rehearse: %w", err)
	}
	return warm(l)
}

// warm writes a file to each directory that Run writes to, so that what the file
// system must know for that is in memory, and removes it.
func warm(l layout.Layout) error {
	dirs := []string{"/etc", "/etc/agentlab", "/etc/ssh", "/etc/systemd/network", "/var/lib/agentlab"}
	if login, err := l.Login(rehearsal.User); err == nil {
		ssh := filepath.Join(login.Home, ".ssh")
		if err := layout.MakeDir(l.At(ssh), 0o700, layout.Owner{UID: login.UID, GID: login.GID}); err != nil {
			return fmt.Errorf("rehearse: %w", err)
		}
		dirs = append(dirs, ssh)
	}
	for _, dir := range dirs {
		path := l.At(dir + "/.agentlab-rehearsal")
		if err := l.Write(path, []byte("rehearsal\n"), 0o600, layout.Owner{}); err != nil {
			return fmt.Errorf("rehearse: %w", err)
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("rehearse: %w", err)
		}
	}
	return nil
}

// believed is a kernel that changes nothing.
func believed(l layout.Layout) Kernel {
	return Kernel{
		AddEntropy: func([]byte) error { return nil },
		SetMAC: func(string) error {
			nic, err := card.Open(l)
			if err != nil {
				return err
			}
			defer nic.Close()
			now, err := nic.MAC()
			if err != nil {
				return err
			}
			return nic.SetMAC(now)
		},
		Configure: func(n seed.NetworkConfig, mac string) error {
			_, err := card.EthernetOf(n, mac)
			return err
		},
		SetHostname: func(string) error { return nil },
		SetTime:     func(time.Time) error { return nil },
	}
}
