package guest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/crypto/ssh"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Config sets how guests behave.
type Config struct {
	World     *world.World
	Heartbeat time.Duration // between signs of life of a guest with a job
	Log       hclog.Logger
}

// disk is what the guest keeps over a reboot.
type disk struct {
	Credential string   `json:"credential"`
	HostKey    string   `json:"host_key"`
	Bound      bool     `json:"bound"` // the credential was bought with the token
	Boot       uint64   `json:"boot"`
	BootID     string   `json:"boot_id"`
	Job        *journal `json:"job,omitempty"`
}

// guest plays one machine since one power-on.
type guest struct {
	Config
	vm     world.VM
	boot   bootstrap
	disk   disk
	client *http.Client
}

// play returns when ctx ends or the guest has nothing more to do.
func play(ctx context.Context, cfg Config, vm world.VM) {
	g := &guest{Config: cfg, vm: vm}
	g.Log = cfg.Log.With("vmid", vm.VMID)
	leave, err := g.occupy(ctx)
	if err != nil {
		g.Log.Debug("guest is not played", "err", err)
		return
	}
	defer leave()
	if err := g.run(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, fault.Precondition) {
		g.Log.Debug("guest stopped", "err", err)
		g.print(ctx, "agent-runner: %v", err)
	}
}

// occupy waits until no other process plays this machine.
func (g *guest) occupy(ctx context.Context) (leave func(), err error) {
	for {
		leave, err := g.World.Occupy(ctx, g.vm.VMID, g.vm.Boot)
		if !errors.Is(err, fault.Locked) {
			return leave, err
		}
		if err := pause(ctx, lockedPause); err != nil {
			return nil, err
		}
	}
}

const (
	lockedPause = 100 * time.Millisecond
	idleBeats   = 3 // a guest without a job gives a sign of life so much more seldom
)

func (g *guest) run(ctx context.Context) error {
	if err := g.bootUp(ctx); err != nil {
		return err
	}
	defer g.client.CloseIdleConnections()
	if g.disk.Job != nil && g.disk.Job.Silent {
		<-ctx.Done()
		return ctx.Err()
	}
	for {
		if err := g.serve(ctx); err != nil {
			return err
		}
		if err := g.idle(ctx); err != nil {
			return err
		}
	}
}

// serve fetches the payload and runs the job in it, if there is one.
func (g *guest) serve(ctx context.Context) error {
	p, err := g.fetch(ctx)
	if err != nil {
		return fmt.Errorf("fetch payload: %w", err)
	}
	if !g.disk.Bound {
		g.disk.Bound = true
		if err := g.save(ctx); err != nil {
			return err
		}
	}
	g.print(ctx, "agent-runner: hello, this is %s", p.Sandbox)
	if p.Job == nil {
		return nil
	}
	err = g.work(ctx, p)
	if errors.Is(err, errRefused) {
		// The host may be done with this job and not with the sandbox.
		g.print(ctx, "agent-runner: run job %s: %v", p.Job.ID, err)
		return pause(ctx, idleBeats*g.Heartbeat)
	}
	if err != nil {
		return fmt.Errorf("run job %s: %w", p.Job.ID, err)
	}
	return nil
}

// idle gives signs of life until the host has a job to fetch.
func (g *guest) idle(ctx context.Context) error {
	for {
		reply, err := g.tell(ctx, report{Kind: heartbeat}, false)
		if errors.Is(err, errRefused) {
			return err
		}
		if err == nil && reply.Fetch {
			return nil
		}
		if err := pause(ctx, idleBeats*g.Heartbeat); err != nil {
			return err
		}
	}
}

// bootUp reads the seed and the disk and makes what a first boot makes.
func (g *guest) bootUp(ctx context.Context) error {
	if err := g.World.LoadGuest(g.vm.VMID, &g.disk); err != nil {
		return err
	}
	from, err := address(g.vm)
	if err != nil {
		return err
	}
	g.client = newClient(from)
	if g.boot, err = readSeed(g.vm.Seed.UserData); err != nil {
		return fmt.Errorf("read seed: %w", err)
	}
	if g.disk.Boot == g.vm.Boot {
		return nil
	}
	if g.disk.Credential == "" {
		if err := g.firstBoot(); err != nil {
			return err
		}
	}
	var id [16]byte
	_, _ = rand.Read(id[:])
	g.disk.Boot, g.disk.BootID = g.vm.Boot, fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	g.print(ctx, "Linux version sim, boot %d", g.vm.Boot)
	return g.save(ctx)
}

func (g *guest) firstBoot() error {
	var credential [32]byte
	_, _ = rand.Read(credential[:])
	g.disk.Credential = base64.RawURLEncoding.EncodeToString(credential[:])
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make host key: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return fmt.Errorf("make host key: %w", err)
	}
	g.disk.HostKey = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	return nil
}

func (g *guest) save(ctx context.Context) error {
	return g.World.SaveGuest(ctx, g.vm.VMID, g.vm.Boot, g.disk)
}

// print writes to the console; a console that is gone is no matter.
func (g *guest) print(ctx context.Context, format string, args ...any) {
	if err := g.World.Print(ctx, g.vm.VMID, g.vm.Boot, fmt.Sprintf(format, args...)); err != nil {
		g.Log.Trace("console not written", "err", err)
	}
}
