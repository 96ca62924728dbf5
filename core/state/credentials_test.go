package state

import (
	"crypto/sha256"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

func putToken(t *testing.T, s *Store, sandboxID, token string, expires time.Time) {
	t.Helper()
	check(t, s.Commit(t.Context(), Commit{Tokens: []Token{{SandboxID: sandboxID, Hash: sha256.Sum256([]byte(token)), Expires: expires}}}))
}

func TestTokenIsUsedOnce(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	sb, other := putSandbox(t, s, "a"), putSandbox(t, s, "b")
	now := time.Now()
	putToken(t, s, sb.ID, "old", now.Add(time.Minute))
	putToken(t, s, sb.ID, "token", now.Add(time.Minute))
	ex := Exchange{Address: sb.Address, TokenHash: hash("token"), CredentialHash: hash("cred"), HostKey: "ssh-ed25519 A", BootID: "1", Now: now}
	with := func(f func(*Exchange)) Exchange {
		e := ex
		f(&e)
		return e
	}
	for name, bad := range map[string]Exchange{
		"another's address": with(func(e *Exchange) { e.Address = other.Address }),
		"no one's address":  with(func(e *Exchange) { e.Address = netip.MustParseAddr("10.77.9.9") }),
		"wrong token":       with(func(e *Exchange) { e.TokenHash = hash("guess") }),
		"too late":          with(func(e *Exchange) { e.Now = now.Add(time.Hour) }),
	} {
		if _, err := s.Exchange(ctx, bad); fault.ClassOf(err) != fault.Denied {
			t.Errorf("%s: error = %v, want denied", name, err)
		}
	}
	if got := firstOf(s.Sandbox(ctx, sb.ID)); !got.ReadyAt.IsZero() {
		t.Error("a refused call counts as hello")
	}

	got := firstOf(s.Exchange(ctx, ex))
	if got.ID != sb.ID || got.HostKey != "ssh-ed25519 A" || got.ReadyAt.IsZero() {
		t.Errorf("exchange gives %+v", got)
	}
	firstOf(s.Exchange(ctx, with(func(e *Exchange) { e.Now = now.Add(time.Hour) }))) // the answer was lost
	for _, bad := range []Exchange{
		with(func(e *Exchange) { e.CredentialHash = hash("thief") }),
		with(func(e *Exchange) { e.TokenHash = hash("old") }),
	} {
		_, err := s.Exchange(ctx, bad)
		wantClass(t, err, fault.Denied)
	}
	if n := len(eventsOf(s, EventFilter{Types: []string{lab.EventGuestHello}})); n != 1 {
		t.Errorf("%d hello events for two calls of one boot, want 1", n)
	}
}

func TestAuthenticate(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	sb, other := putSandbox(t, s, "a"), putSandbox(t, s, "b")
	putToken(t, s, sb.ID, "token", time.Now().Add(time.Minute))
	firstOf(s.Exchange(ctx, Exchange{Address: sb.Address, TokenHash: hash("token"), CredentialHash: hash("cred"), Now: time.Now()}))

	if got := firstOf(s.Authenticate(ctx, sb.Address, hash("cred"))); got.ID != sb.ID {
		t.Errorf("authenticated as %s", got.ID)
	}
	for _, bad := range []struct {
		address netip.Addr
		hash    []byte
	}{{other.Address, hash("cred")}, {sb.Address, hash("guess")}, {sb.Address, nil}, {sb.Address, hash("token")}} {
		_, err := s.Authenticate(ctx, bad.address, bad.hash)
		wantClass(t, err, fault.Denied)
	}
	check(t, s.Hello(ctx, sb.ID, "", "2", "v2", time.Now()))
	check(t, s.RevokeCredentials(ctx, sb.ID))
	_, err := s.Authenticate(ctx, sb.Address, hash("cred"))
	wantClass(t, err, fault.Denied)
	if !errors.Is(err, ErrRevoked) {
		t.Errorf("what was the sandbox's own is %v", err)
	}
	for _, a := range []netip.Addr{sb.Address, other.Address} { // a stranger stays one
		if _, err := s.Authenticate(ctx, a, hash("guess")); errors.Is(err, ErrRevoked) {
			t.Errorf("a guess at %s is %v", a, err)
		}
	}
	if _, err := s.Authenticate(ctx, other.Address, hash("cred")); errors.Is(err, ErrRevoked) {
		t.Errorf("at another's address it is %v", err)
	}
	_, err = s.Exchange(ctx, Exchange{Address: sb.Address, TokenHash: hash("token"), CredentialHash: hash("cred"), Now: time.Now()})
	wantClass(t, err, fault.Denied)
}

func TestDestroyedSandboxHasNoCredential(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	sb := putSandbox(t, s, "a")
	putToken(t, s, sb.ID, "token", time.Now().Add(time.Minute))
	check(t, s.Commit(ctx, Commit{Sandboxes: []SandboxChange{{ID: sb.ID, To: lab.SandboxDestroyed}}}))
	_, err := s.Exchange(ctx, Exchange{Address: sb.Address, TokenHash: hash("token"), CredentialHash: hash("cred"), Now: time.Now()})
	wantClass(t, err, fault.Denied)
}

func TestExtendTokens(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	sb := putSandbox(t, s, "a")
	now := time.Now()
	putToken(t, s, sb.ID, "token", now.Add(-time.Second))
	ex := Exchange{Address: sb.Address, TokenHash: hash("token"), CredentialHash: hash("cred"), Now: now}
	_, err := s.Exchange(ctx, ex)
	wantClass(t, err, fault.Denied)
	check(t, s.Commit(ctx, Commit{Extend: []Extension{{SandboxID: sb.ID, Expires: now.Add(time.Minute)}}}))
	firstOf(s.Exchange(ctx, ex))
}
