package seedapply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/seed"
)

// diskWait is how long a VM that has never seen a seed waits for its disk.
const diskWait = 10 * time.Second

// Config is what Apply works on.
type Config struct {
	Layout      layout.Layout
	SetHostname func(string) error // nil: the kernel's
	DiskWait    time.Duration      // 0: ten seconds
	Log         hclog.Logger
}

// state is what SeedState holds.
type state struct {
	InstanceID string    `json:"instance_id"`
	AppliedAt  time.Time `json:"applied_at"`
}

// Apply makes the guest match its seed and gives it a host key. A seed is
// applied once per instance id, so that a reboot does not undo what people
// changed since. Without a seed disk an earlier state stays; a VM that never
// had one is left as it is. One part that cannot be applied does not keep the
// others from it; the seed is then tried again at the next boot. A guest that
// is to become a memory template finds a disk that says so, and is marked.
func Apply(ctx context.Context, c Config) error {
	keyErr := ensureHostKey(c.Layout)
	before, known := readState(c.Layout)
	wait := c.DiskWait
	if wait == 0 {
		wait = diskWait
	}
	if known {
		wait = 0
	}
	disk, template := awaitDisk(ctx, c.Layout, wait)
	switch {
	case template && !known:
		c.Log.Info("this guest becomes a memory template")
		// sshd does not start without a key; nobody ever sees this one, and
		// settle removes it.
		return errors.Join(keyErr, c.Layout.Write(c.Layout.TemplateMark(), nil, 0o600, layout.Owner{}))
	case template || disk == "":
		c.Log.Info("no seed disk", "known", known)
		return keyErr
	}
	docs, err := readDisk(disk)
	if err != nil {
		return errors.Join(keyErr, err)
	}
	s, err := c.parse(docs)
	if err != nil {
		return errors.Join(keyErr, err)
	}
	early := errors.Join(keyErr, ownMAC(c.Layout, s.Network))
	if known && before.InstanceID == s.Meta.InstanceID {
		c.Log.Info("seed was applied before", "sandbox", s.Meta.InstanceID)
		return early
	}
	if err := errors.Join(early, c.apply(s)); err != nil {
		return err
	}
	return c.remember(s)
}

// ApplyDocuments makes a guest without a seed match the one that is given, as
// Apply does at boot.
func ApplyDocuments(c Config, docs seed.Documents) (seed.Seed, error) {
	s, err := c.parse(docs)
	if err != nil {
		return s, err
	}
	if err := c.apply(s); err != nil {
		return s, err
	}
	return s, c.remember(s)
}

func (c Config) parse(docs seed.Documents) (seed.Seed, error) {
	s, err := seed.Parse(docs)
	if err != nil {
		return s, fmt.Errorf("read seed: %w", err)
	}
	for _, w := range s.Warnings {
		c.Log.Warn("part of the seed is ignored", "err", w)
	}
	return s, nil
}

func (c Config) remember(s seed.Seed) error {
	return writeState(c.Layout, state{InstanceID: s.Meta.InstanceID, AppliedAt: time.Now().UTC()})
}

func (c Config) apply(s seed.Seed) error {
	var errs []error
	for _, f := range s.User.WriteFiles {
		errs = append(errs, writeOne(c.Layout, f))
	}
	errs = append(errs, applyNetwork(c.Layout, s.Network))
	for _, u := range s.User.Users {
		errs = append(errs, authorize(c.Layout, u))
	}
	if s.User.Hostname != "" {
		errs = append(errs, c.applyHostname(s.User.Hostname, s.User.ManageHosts))
	}
	return errors.Join(errs...)
}

func (c Config) applyHostname(name string, hosts bool) error {
	set := c.SetHostname
	if set == nil {
		set = func(name string) error { return syscall.Sethostname([]byte(name)) }
	}
	if err := set(name); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	if err := c.Layout.Write(c.Layout.At("/etc/hostname"), []byte(name+"\n"), 0o644, layout.Owner{}); err != nil {
		return fmt.Errorf("write hostname: %w", err)
	}
	if !hosts {
		return nil
	}
	return nameInHosts(c.Layout, name)
}

func readState(l layout.Layout) (state, bool) {
	var s state
	b, err := os.ReadFile(l.SeedState())
	if err != nil || json.Unmarshal(b, &s) != nil {
		return state{}, false
	}
	return s, true
}

func writeState(l layout.Layout, s state) error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode seed state: %w", err)
	}
	if err := l.Write(l.SeedState(), append(b, '\n'), 0o600, layout.Owner{}); err != nil {
		return fmt.Errorf("remember seed: %w", err)
	}
	return nil
}
