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
	"github.com/agentlab/agentlab/sdk/secret"
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
func Rehearse(ctx context.Context, l layout.Layout) error {
	// All in memory: this is part of what is frozen.
	if err := (play{input: rehearsal, kernel: believed(l), times: 1}).stage(ctx, l, l.Run()); err != nil {
		return err
	}
	return warm(l)
}

// Earnest is what RehearseInEarnest needs beside the guest.
type Earnest struct {
	Entropy    []byte
	Controller string // that the rehearsal's seed names
	// Then goes on in the directory that has all of the rehearsal's identity.
	Then func(there layout.Layout) error
}

// RehearseInEarnest is Rehearse for one copy only, before it becomes somebody: the
// kernel is told what Run tells it, so that an emulator has translated that code.
// Random numbers are the copy's own first. The card gets an address for
// documentation and loses it again; it is up from then on. Host name, MAC
// address, and clock are set to what they are.
func RehearseInEarnest(ctx context.Context, l layout.Layout, e Earnest) error {
	kernel, done := earnest(l, e.Entropy)
	defer done()
	return performEarnest(ctx, l, e, kernel)
}

func performEarnest(ctx context.Context, l layout.Layout, e Earnest, k Kernel) error {
	in := rehearsal
	in.Controller, in.Token = e.Controller, secret.New("rehearsal")
	if err := warm(l); err != nil { // makes the directory, too
		return err
	}
	// On the disk, where an identity is.
	return play{in, k, e.Then, 2}.stage(ctx, l, filepath.Dir(l.Credential()))
}

// play is one rehearsal.
type play struct {
	input  seed.Input
	kernel Kernel
	then   func(there layout.Layout) error // nil: no more
	times  int
}

// stage makes the directory for p, performs it there, and removes it.
func (p play) stage(ctx context.Context, l layout.Layout, disk string) (err error) {
	dirs := []string{l.Run(), disk}
	for _, dir := range dirs { // of a program that was killed in one
		left, _ := filepath.Glob(filepath.Join(dir, "rehearsal-*"))
		for _, old := range left {
			if err := os.RemoveAll(old); err != nil {
				return fmt.Errorf("remove old rehearsal: %w", err)
			}
		}
	}
	for i, dir := range dirs {
		if dirs[i], err = os.MkdirTemp(dir, "rehearsal-*"); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dirs[i])) }()
	}
	there := layout.Layout{Root: dirs[1]}
	if err := os.Symlink(dirs[0], there.At("/run")); err != nil {
		return fmt.Errorf("rehearse: %w", err)
	}
	for path, text := range map[string]string{
		"/etc/passwd": "agent:x:0:0::/home/agent:/bin/sh\n", "/home/agent/.profile": "", "/etc/machine-id": "rehearsal\n",
		"/run/agentlab/template": "", "/run/log/journal/rehearsal/system.journal": "",
	} {
		if err := there.Write(there.At(path), []byte(text), 0o644, layout.Owner{}); err != nil {
			return fmt.Errorf("rehearse: %w", err)
		}
	}
	// The second time there are files to be replaced, as there are in a guest.
	for range p.times {
		if err := p.perform(ctx, there); err != nil {
			return fmt.Errorf("rehearse: %w", err)
		}
	}
	return nil
}

func (p play) perform(ctx context.Context, there layout.Layout) error {
	docs, err := seed.Render(p.input)
	if err != nil {
		return err
	}
	line, err := json.Marshal(channel.Identity{MAC: p.input.MAC, Seed: channel.Seed(docs), Time: time.Now()})
	if err != nil {
		return err
	}
	var id channel.Identity
	if err := json.Unmarshal(line, &id); err != nil {
		return err
	}
	out, err := Run(ctx, Config{Layout: there, Kernel: p.kernel, Log: hclog.NewNullLogger()}, id, time.Now())
	if err != nil {
		return err
	}
	if _, err = json.Marshal(out); err != nil || p.then == nil {
		return err
	}
	return p.then(there)
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
			return keepMAC(nic)
		},
		Configure: func(n seed.NetworkConfig, mac string) error {
			_, err := card.EthernetOf(n, mac)
			return err
		},
		SetHostname: func(string) error { return nil },
		SetTime:     func(time.Time) error { return nil },
	}
}

// earnest is the kernel itself, which hears what it knows already. Call done when
// it has done its part.
func earnest(l layout.Layout, entropy []byte) (k Kernel, done func()) {
	var nic *card.Card
	k = Kernel{
		AddEntropy: func([]byte) error { return addEntropy(l, entropy) },
		SetMAC: func(string) (err error) {
			nic.Close() // of the time before
			if nic, err = card.Open(l); err != nil {
				return err
			}
			return keepMAC(nic)
		},
		Configure: func(n seed.NetworkConfig, mac string) error {
			return errors.Join(nic.Configure(n, mac), nic.Strip(n, mac))
		},
		SetHostname: func(string) error {
			now, err := os.Hostname()
			if err != nil {
				return fmt.Errorf("read host name: %w", err)
			}
			return setHostname(now)
		},
		SetTime: func(time.Time) error { return setTime(time.Now()) },
	}
	return k, func() { nic.Close() }
}

func keepMAC(nic *card.Card) error {
	now, err := nic.MAC()
	if err != nil {
		return err
	}
	return nic.SetMAC(now)
}
