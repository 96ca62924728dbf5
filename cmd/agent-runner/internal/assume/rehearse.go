package assume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

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
	_, err = json.Marshal(out)
	return err
}

// believed is a kernel that changes nothing.
func believed(l layout.Layout) Kernel {
	return Kernel{
		AddEntropy: func([]byte) error { return nil },
		SetMAC: func(string) error {
			nic, err := openCard(l)
			if err != nil {
				return err
			}
			defer nic.close()
			return nic.setMAC(nic.link.Attrs().HardwareAddr.String()) // the one it has
		},
		Configure: func(n seed.NetworkConfig, mac string) error {
			_, err := ethernetOf(n, mac)
			return err
		},
		SetHostname: func(string) error { return nil },
		SetTime:     func(time.Time) error { return nil },
	}
}
