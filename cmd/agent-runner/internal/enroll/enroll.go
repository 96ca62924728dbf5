package enroll

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/guestclient"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// refusedWait is how long a guest waits after its host has refused it: only
// people can change that.
const refusedWait = time.Minute

// Identity is who this guest is to its host.
type Identity struct {
	Bootstrap  guestapi.Bootstrap
	Credential secret.Value
}

// Load reads the bootstrap file and the credential, and waits for the former:
// in an image with cloud-init the runner may start before it is written. A new
// credential is on disk before it is first shown to anybody.
func Load(ctx context.Context, l layout.Layout, log hclog.Logger) (Identity, error) {
	var id Identity
	for waiting := false; ; waiting = true {
		b, err := os.ReadFile(l.Bootstrap())
		if err == nil {
			err = json.Unmarshal(b, &id.Bootstrap)
		}
		if err == nil && id.Bootstrap.Controller != "" {
			break
		}
		if !waiting {
			log.Warn("no usable bootstrap file yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return id, context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
	credential, err := loadCredential(l)
	id.Credential = credential
	return id, err
}

// EnsureCredential makes the credential that Load will find, unless there is one.
func EnsureCredential(l layout.Layout) error {
	_, err := loadCredential(l)
	return err
}

func loadCredential(l layout.Layout) (secret.Value, error) {
	b, err := os.ReadFile(l.Credential())
	if text := strings.TrimSpace(string(b)); err == nil && text != "" {
		return secret.New(text), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return secret.Value{}, fmt.Errorf("read credential: %w", err)
	}
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails, see crypto/rand
	text := base64.RawURLEncoding.EncodeToString(raw[:])
	if err := l.Write(l.Credential(), []byte(text+"\n"), 0o600, layout.Owner{}); err != nil {
		return secret.Value{}, fmt.Errorf("keep credential: %w", err)
	}
	return secret.New(text), nil
}

// Fetcher is the host.
type Fetcher interface {
	Fetch(ctx context.Context, req guestapi.FetchRequest) (guestapi.Payload, error)
}

// Config is what Fetch works with.
type Config struct {
	Layout  layout.Layout
	Host    Fetcher
	Version string
	Log     hclog.Logger
	Console func(string) // for people in front of a VM that its host refuses
}

// Fetch gets the payload: with the token as long as the bootstrap file has
// one, else with the credential. It tries for as long as ctx lasts. After a
// success the token, of no use any more, is taken out of the bootstrap file.
func Fetch(ctx context.Context, c Config, id Identity) (guestapi.Payload, error) {
	for {
		p, err := c.once(ctx, id)
		if err == nil {
			return p, c.forgetToken(id.Bootstrap)
		}
		if ctx.Err() != nil {
			return p, fmt.Errorf("fetch payload: %w", context.Cause(ctx))
		}
		c.Log.Error("host refuses this guest", "err", err)
		c.Console(fmt.Sprintf("agentlab: %s refuses this sandbox: %v. Destroy it and make a new one.", id.Bootstrap.Controller, err))
		select {
		case <-ctx.Done():
			return p, context.Cause(ctx)
		case <-time.After(refusedWait):
		}
	}
}

// Again gets the payload anew, for a guest that has had one. Unlike Fetch it
// takes the host's refusal for an answer.
func Again(ctx context.Context, c Config, id Identity) (guestapi.Payload, error) {
	p, err := c.once(ctx, id)
	if err != nil {
		return guestapi.Payload{}, fmt.Errorf("fetch payload again: %w", err)
	}
	return p, nil
}

func (c Config) once(ctx context.Context, id Identity) (guestapi.Payload, error) {
	key, err := os.ReadFile(c.Layout.HostKey() + ".pub")
	if err != nil {
		return guestapi.Payload{}, fmt.Errorf("read host key: %w", err)
	}
	req := guestapi.FetchRequest{HostKey: strings.TrimSpace(string(key)), BootID: c.Layout.BootID(), Runner: c.Version}
	if id.Bootstrap.Token != "" {
		first := req
		first.Token, first.Credential = id.Bootstrap.Token, id.Credential.Reveal()
		p, err := c.try(ctx, first)
		if !errors.Is(err, fault.Denied) {
			return p, err
		}
		// The token may have served already, and the answer or our note of it
		// was lost.
	}
	return c.try(ctx, req)
}

func (c Config) try(ctx context.Context, req guestapi.FetchRequest) (p guestapi.Payload, err error) {
	onFailure := func(attempt int, err error) {
		if attempt == 1 || attempt%20 == 0 {
			c.Log.Warn("host does not answer", "attempt", attempt, "err", err)
		}
	}
	err = guestclient.Retry(ctx, onFailure, func(ctx context.Context) error {
		p, err = c.Host.Fetch(ctx, req)
		return err
	})
	return p, err
}

func (c Config) forgetToken(b guestapi.Bootstrap) error {
	if b.Token == "" {
		return nil
	}
	b.Token = ""
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("forget token: %w", err)
	}
	if err := layout.WriteFile(c.Layout.Bootstrap(), append(text, '\n'), 0o600, layout.Owner{}); err != nil {
		return fmt.Errorf("forget token: %w", err)
	}
	return nil
}
