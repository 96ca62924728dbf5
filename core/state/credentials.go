package state

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"errors"
	"net/netip"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Token is a bootstrap token that is good for the sandbox until it expires or one
// of the sandbox's tokens is used. Earlier unused ones stay good beside it: a VM
// that was made before a crash holds the token of that attempt.
type Token struct {
	SandboxID string
	Hash      [sha256.Size]byte
	Expires   time.Time
}

func (k Token) apply(ctx context.Context, t *tx) error {
	return t.exec(ctx, `INSERT INTO tokens VALUES (?,?,?)`, k.Hash[:], k.SandboxID, millis(k.Expires))
}

// Extension moves the expiry of the sandbox's unused tokens: the clock runs while
// the guest boots, not while its creation waits in a queue.
type Extension struct {
	SandboxID string
	Expires   time.Time
}

func (e Extension) apply(ctx context.Context, t *tx) error {
	return t.exec(ctx, `UPDATE tokens SET expires_at = ? WHERE sandbox_id = ?`, millis(e.Expires), e.SandboxID)
}

// Exchange is a guest's first call: a token for a credential.
type Exchange struct {
	Address                   netip.Addr // where the call came from
	TokenHash, CredentialHash []byte     // SHA-256
	HostKey, BootID, Runner   string
	Now                       time.Time
}

type credential struct {
	token, hash []byte
	revoked     bool
}

// Exchange binds the credential to the sandbox at the address and records the
// guest's hello. The token is used up: the same pair may come again, anything
// else is fault.Denied, as is a token that is unknown, expired, or of another
// sandbox.
func (s *Store) Exchange(ctx context.Context, e Exchange) (sb lab.Sandbox, err error) {
	if len(e.TokenHash) != sha256.Size || len(e.CredentialHash) != sha256.Size {
		return sb, fault.New(fault.Invalid, "token and credential hashes have %d bytes", sha256.Size)
	}
	err = s.write(ctx, "exchange token", func(ctx context.Context, t *tx) error {
		if sb, err = sandboxAt(ctx, t, e.Address); errors.Is(err, fault.NotFound) {
			return fault.New(fault.Denied, "no sandbox has the address %s", e.Address)
		} else if err != nil {
			return err
		}
		c, err := readCredential(ctx, t, sb.ID)
		switch {
		case errors.Is(err, fault.NotFound):
			err = t.bind(ctx, sb.ID, e)
		case err == nil && !c.matches(e):
			err = fault.New(fault.Denied, "token of sandbox %s is used up", sb.ID)
		}
		if err != nil {
			return err
		}
		sb, err = t.hello(ctx, sb.ID, e)
		return err
	})
	if err != nil {
		return lab.Sandbox{}, err
	}
	return sb, nil
}

func (c credential) matches(e Exchange) bool {
	same := subtle.ConstantTimeCompare(c.token, e.TokenHash) & subtle.ConstantTimeCompare(c.hash, e.CredentialHash)
	return same == 1 && !c.revoked
}

func readCredential(ctx context.Context, q queryer, sandboxID string) (credential, error) {
	return one(ctx, q, func(row scanner) (c credential, err error) {
		return c, row.Scan(&c.token, &c.hash, &c.revoked)
	}, "credential of sandbox "+sandboxID, `SELECT token_hash, hash, revoked_at <> 0 FROM credentials WHERE sandbox_id = ?`, sandboxID)
}

// bind uses a token up.
func (t *tx) bind(ctx context.Context, sandboxID string, e Exchange) error {
	var found int
	err := t.QueryRowContext(ctx, `SELECT 1 FROM tokens WHERE hash = ? AND sandbox_id = ? AND expires_at > ?`,
		e.TokenHash, sandboxID, millis(e.Now)).Scan(&found)
	if errors.Is(err, sql.ErrNoRows) {
		return fault.New(fault.Denied, "token is not one of sandbox %s, or has expired", sandboxID)
	}
	if err != nil {
		return err
	}
	if err := t.exec(ctx, `DELETE FROM tokens WHERE sandbox_id = ?`, sandboxID); err != nil {
		return err
	}
	return t.exec(ctx, `INSERT INTO credentials (sandbox_id, token_hash, hash, created_at) VALUES (?,?,?,?)`,
		sandboxID, e.TokenHash, e.CredentialHash, millis(e.Now))
}

// Hello records what a guest says about itself at a later start; an empty host
// key keeps the known one.
func (s *Store) Hello(ctx context.Context, sandboxID, hostKey, bootID, runner string, now time.Time) error {
	return s.write(ctx, "record hello", func(ctx context.Context, t *tx) error {
		_, err := t.hello(ctx, sandboxID, Exchange{HostKey: hostKey, BootID: bootID, Runner: runner, Now: now})
		return err
	})
}

// hello writes an event only when it has news, since a guest may call as often
// as it likes.
func (t *tx) hello(ctx context.Context, sandboxID string, e Exchange) (lab.Sandbox, error) {
	changed, err := t.change(ctx, `UPDATE sandboxes SET host_key = CASE ?1 WHEN '' THEN host_key ELSE ?1 END, boot_id = ?2, runner = ?3,
		ready_at = CASE ready_at WHEN 0 THEN ?4 ELSE ready_at END
		WHERE id = ?5 AND (ready_at = 0 OR boot_id <> ?2 OR runner <> ?3 OR (?1 <> '' AND host_key <> ?1))`,
		e.HostKey, e.BootID, e.Runner, millis(e.Now), sandboxID)
	if err != nil {
		return lab.Sandbox{}, err
	}
	sb, err := readSandbox(ctx, t, sandboxID)
	if err != nil || !changed {
		return sb, err
	}
	return sb, t.emit(ctx, lab.Event{
		Type: lab.EventGuestHello, SandboxID: sandboxID, JobID: sb.JobID, At: e.Now,
		Fields: map[string]string{"boot_id": e.BootID, "runner": e.Runner},
	})
}

// ErrRevoked denies a credential that was the sandbox's own.
var ErrRevoked = fault.New(fault.Denied, "the credential was revoked")

// Authenticate gives the live sandbox at the address if the credential, given
// by its SHA-256, is the one bound to it and not revoked; else fault.Denied,
// which is ErrRevoked for one that was good before.
func (s *Store) Authenticate(ctx context.Context, address netip.Addr, credentialHash []byte) (lab.Sandbox, error) {
	denied := fault.New(fault.Denied, "no sandbox at %s has this credential", address)
	sb, err := s.SandboxByAddress(ctx, address)
	if errors.Is(err, fault.NotFound) {
		return lab.Sandbox{}, denied
	}
	if err != nil {
		return lab.Sandbox{}, err
	}
	c, err := readCredential(ctx, s.reader, sb.ID)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return lab.Sandbox{}, err
	}
	if err != nil || subtle.ConstantTimeCompare(c.hash, credentialHash) != 1 {
		return lab.Sandbox{}, denied
	}
	if c.revoked {
		return lab.Sandbox{}, ErrRevoked
	}
	return sb, nil
}

// RevokeCredentials makes the sandbox's credential and tokens useless.
func (s *Store) RevokeCredentials(ctx context.Context, sandboxID string) error {
	return s.write(ctx, "revoke credentials", func(ctx context.Context, t *tx) error { return t.revoke(ctx, sandboxID) })
}

func (t *tx) revoke(ctx context.Context, sandboxID string) error {
	if err := t.exec(ctx, `DELETE FROM tokens WHERE sandbox_id = ?`, sandboxID); err != nil {
		return err
	}
	return t.exec(ctx, `UPDATE credentials SET revoked_at = ? WHERE sandbox_id = ? AND revoked_at = 0`, millis(t.now), sandboxID)
}
