package rehearse

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/crypto/ssh"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/guestclient"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/seedapply"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/secret"
)

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// The guest's own client finds in it all that a sandbox without a job asks for, and
// hears an answer to a sign of life before it ends.
func TestMeet(t *testing.T) {
	h, err := newHost()
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	fetched, heard := 0, 0
	serve := func(ctx context.Context, l layout.Layout, _ hclog.Logger) error {
		c := guestclient.New(h.url(), secret.New("c"))
		defer c.Close()
		for ctx.Err() == nil {
			p, err := c.Fetch(ctx, guestapi.FetchRequest{Token: "t"})
			if err != nil || p.Sandbox == "" || p.Job != nil || l.Root != "there" {
				t.Errorf("in %q, payload %+v, %v", l.Root, p, err)
			}
			fetched++
			reply, err := c.Report(ctx, guestapi.Report{Kind: guestapi.ReportHeartbeat})
			if err == nil {
				heard++
			}
			if !reply.Fetch {
				<-ctx.Done() // as long as a real one pauses
			}
		}
		return nil
	}
	if err := h.meet(soon(t), layout.Layout{Root: "there"}, serve); err != nil || fetched < 2 || heard < 1 {
		t.Errorf("%d payloads, %d answers, %v", fetched, heard, err)
	}
}

func TestMeetFails(t *testing.T) {
	h, err := newHost()
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	gaveUp := errors.New("no login")
	for name, want := range map[string]error{"with an error": gaveUp, "without": nil} {
		err := h.meet(soon(t), layout.Layout{}, func(context.Context, layout.Layout, hclog.Logger) error { return want })
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("a guest that gives up %s: %v", name, err)
		}
	}
}

func TestPrograms(t *testing.T) {
	l := layout.Layout{Root: t.TempDir()}
	if err := programs(soon(t), l); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := programs(ctx, l); err == nil {
		t.Error("programs ran after all was over")
	}
}

// sshd answers one connection with the key in the file, as sshd does, and tells how
// that went.
func sshd(t *testing.T, key string) (address string, over chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	over = make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			over <- err
			return
		}
		defer conn.Close()
		text, err := os.ReadFile(key)
		if err != nil {
			over <- err
			return
		}
		signer, err := ssh.ParsePrivateKey(text)
		if err != nil {
			over <- err
			return
		}
		config := &ssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(signer)
		_, _, _, err = ssh.NewServerConn(conn, config)
		if err == nil {
			err = errors.New("somebody logged in")
		}
		over <- err
	}()
	return ln.Addr().String(), over
}

func TestLogin(t *testing.T) {
	for name, left := range map[string]bool{"no host key": false, "one before": true} {
		t.Run(name, func(t *testing.T) {
			l := layout.Layout{Root: t.TempDir()}
			if left {
				if _, err := seedapply.NewHostKey(l); err != nil {
					t.Fatal(err)
				}
			}
			address, over := sshd(t, l.HostKey())
			err := login(soon(t), l, address)
			said := <-over
			if err != nil || strings.Contains(said.Error(), "logged in") || strings.Contains(said.Error(), "no such file") {
				t.Errorf("%v; sshd says %v", err, said)
			}
			for _, path := range []string{l.HostKey(), l.HostKey() + ".pub"} {
				if _, err := os.Stat(path); (err == nil) != left {
					t.Errorf("%s afterwards: %v", path, err)
				}
			}
		})
	}
}

// What is no sshd is an error, and no sshd is none.
func TestLoginFails(t *testing.T) {
	l := layout.Layout{Root: t.TempDir()}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := login(ctx, l, ln.Addr().String()); err == nil {
		t.Error("one that never answers was met")
	}
	ln.Close()
	if err := login(soon(t), l, ln.Addr().String()); err != nil {
		t.Errorf("none listens: %v", err)
	}
	if _, err := os.Stat(l.HostKey()); err == nil {
		t.Error("the host key stayed")
	}
}
