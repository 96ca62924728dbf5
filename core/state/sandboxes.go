package state

import (
	"context"
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/lab"
)

const sandboxColumns = `id, name, vmid, address, mac, interface, owner, state, reason, spec, profile, job_id,
	host_key, generation, keep, created_at, ready_at, expires_at, ended_at`

func scanSandbox(row scanner) (sb lab.Sandbox, err error) {
	var address, spec string
	var created, ready, expires, ended int64
	err = row.Scan(&sb.ID, &sb.Name, &sb.VMID, &address, &sb.MAC, &sb.Interface, &sb.Owner, &sb.State, &sb.Reason,
		&spec, &sb.Profile, &sb.JobID, &sb.HostKey, &sb.Generation, &sb.Keep, &created, &ready, &expires, &ended)
	if err != nil {
		return sb, err
	}
	if address != "" {
		if sb.Address, err = netip.ParseAddr(address); err != nil {
			return sb, err
		}
	}
	sb.CreatedAt, sb.ReadyAt, sb.ExpiresAt, sb.EndedAt = fromMillis(created), fromMillis(ready), fromMillis(expires), fromMillis(ended)
	return sb, json.Unmarshal([]byte(spec), &sb.Spec)
}

func (t *tx) insertSandbox(ctx context.Context, sb lab.Sandbox) error {
	spec, err := json.Marshal(sb.Spec)
	if err != nil {
		return err
	}
	address := ""
	if sb.Address.IsValid() {
		address = sb.Address.String()
	}
	err = t.exec(ctx, `INSERT INTO sandboxes (`+sandboxColumns+`) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
		sb.ID, sb.Name, sb.VMID, address, sb.MAC, sb.Interface, sb.Owner, sb.State, sb.Reason, string(spec), sb.Profile,
		sb.JobID, sb.HostKey, sb.Generation, sb.Keep, millis(sb.CreatedAt), millis(sb.ReadyAt), millis(sb.ExpiresAt), millis(sb.EndedAt))
	if err != nil {
		return err
	}
	return t.emit(ctx, lab.Event{Type: lab.EventSandboxRequested, SandboxID: sb.ID, JobID: sb.JobID, Message: sb.Name})
}

// Sandbox gives the sandbox of that id, or fault.NotFound.
func (s *Store) Sandbox(ctx context.Context, id string) (lab.Sandbox, error) {
	return readSandbox(ctx, s.reader, id)
}

func readSandbox(ctx context.Context, q queryer, id string) (lab.Sandbox, error) {
	return one(ctx, q, scanSandbox, "sandbox "+id, `SELECT `+sandboxColumns+` FROM sandboxes WHERE id = ?`, id)
}

// FindSandbox gives the sandbox that ref means: a VMID when it has digits only,
// else an id or a name. Among several a live one wins, then the newest.
func (s *Store) FindSandbox(ctx context.Context, ref string) (lab.Sandbox, error) {
	where, arg := "name = ?", any(ref)
	if vmid, err := strconv.ParseUint(ref, 10, 32); err == nil {
		where, arg = "vmid = ? AND vmid <> 0", vmid
	} else if strings.HasPrefix(ref, "sbx_") {
		where = "id = ?"
	}
	return one(ctx, s.reader, scanSandbox, "sandbox "+ref, `SELECT `+sandboxColumns+` FROM sandboxes WHERE `+where+`
		ORDER BY state = 'DESTROYED', seq DESC LIMIT 1`, arg)
}

// SandboxFilter selects sandboxes; the zero value selects all that are not
// destroyed.
type SandboxFilter struct {
	All    bool // also destroyed ones
	States []lab.SandboxState
	Limit  int // of the newest; 0 is no limit
}

// Sandboxes lists, oldest first.
func (s *Store) Sandboxes(ctx context.Context, f SandboxFilter) ([]lab.Sandbox, error) {
	var w where
	switch {
	case len(f.States) > 0:
		in(&w, "state", f.States)
	case !f.All:
		w.add("state <> 'DESTROYED'")
	}
	return many(ctx, s.reader, scanSandbox, "sandboxes", newest(`SELECT seq, `+sandboxColumns+` FROM sandboxes`, sandboxColumns, &w, f.Limit), w.args...)
}

// SandboxByAddress gives the live sandbox of that address, or fault.NotFound.
func (s *Store) SandboxByAddress(ctx context.Context, address netip.Addr) (lab.Sandbox, error) {
	return sandboxAt(ctx, s.reader, address)
}

func sandboxAt(ctx context.Context, q queryer, address netip.Addr) (lab.Sandbox, error) {
	return one(ctx, q, scanSandbox, "sandbox with address "+address.String(),
		`SELECT `+sandboxColumns+` FROM sandboxes WHERE address = ? AND address <> '' AND state <> 'DESTROYED'`, address.Unmap().String())
}

// LeftSandboxes lists what was made for a job that has ended, has no lease, is
// not to be kept, and on which nothing works any more.
func (s *Store) LeftSandboxes(ctx context.Context) ([]lab.Sandbox, error) {
	return many(ctx, s.reader, scanSandbox, "sandboxes left by jobs", `SELECT `+sandboxColumns+` FROM sandboxes s
		WHERE state <> 'DESTROYED' AND keep = 0 AND expires_at = 0
			AND EXISTS (SELECT 1 FROM jobs j WHERE j.sandbox_id = s.id AND j.borrowed = 0 AND j.ended_at <> 0)
			AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.subject = s.id AND o.ended_at = 0)
		ORDER BY seq`)
}

// BeginLease sets the end of a sandbox that has none yet.
func (s *Store) BeginLease(ctx context.Context, sandboxID string, expires time.Time) error {
	return s.write(ctx, "begin lease", func(ctx context.Context, t *tx) error {
		t.touched[sandboxID] = true
		return t.exec(ctx, `UPDATE sandboxes SET expires_at = ? WHERE id = ? AND keep = 0 AND expires_at = 0`, millis(expires), sandboxID)
	})
}

// ExpiredSandboxes lists live sandboxes without Keep whose lease is over, which
// no destroy-sandbox is ending and in which no job runs: a job has a deadline of
// its own.
func (s *Store) ExpiredSandboxes(ctx context.Context, limit int) ([]lab.Sandbox, error) {
	return many(ctx, s.reader, scanSandbox, "expired sandboxes", `SELECT `+sandboxColumns+` FROM sandboxes s
		WHERE state <> 'DESTROYED' AND keep = 0 AND expires_at <> 0 AND expires_at <= ? AND NOT EXISTS (
			SELECT 1 FROM operations o WHERE o.subject = s.id AND o.kind IN ('destroy-sandbox', 'run-job') AND o.ended_at = 0)
		ORDER BY expires_at LIMIT ?`, now(), limit)
}

// IdleSandboxes lists live sandboxes in one of the states that no open
// operation works on.
func (s *Store) IdleSandboxes(ctx context.Context, states ...lab.SandboxState) ([]lab.Sandbox, error) {
	var w where
	w.add("state <> 'DESTROYED'")
	w.add("NOT EXISTS (SELECT 1 FROM operations o WHERE o.subject = sandboxes.id AND o.ended_at = 0)")
	in(&w, "state", states)
	return many(ctx, s.reader, scanSandbox, "sandboxes", `SELECT `+sandboxColumns+` FROM sandboxes`+w.sql()+` ORDER BY seq`, w.args...)
}
