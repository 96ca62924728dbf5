package guest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	openTimeout = 15 * time.Second // of a bundle
	shortest    = 43               // characters of a credential: 256 bits in base64url
	ownFailure  = 125              // exit code of a job that failed before its agent ran
)

// fetch gives a sandbox its payload: at the first boot for a token, later for
// the credential that the token bought.
func (s *Server) fetch(w http.ResponseWriter, r *http.Request, from netip.Addr) error {
	var req guestapi.FetchRequest
	if err := decodeBody(w, r, &req); err != nil {
		return err
	}
	if err := checkFetch(&req); err != nil {
		return err
	}
	if err := s.callers.get(from).tell(); err != nil {
		return err
	}
	sb, err := s.identify(r, from, req)
	if err != nil {
		return err
	}
	payload, err := s.payload(r.Context(), sb)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, payload)
}

// checkFetch cleans what ends up in rows and known_hosts files.
func checkFetch(req *guestapi.FetchRequest) error {
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(req.HostKey))
	if err != nil || key.Type() != ssh.KeyAlgoED25519 || len(options) > 0 || len(rest) > 0 {
		return fault.New(fault.Invalid, "host_key is not one ssh-ed25519 public key")
	}
	req.HostKey = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) // without comment
	if req.Token != "" && len(req.Credential) < shortest {
		return fault.New(fault.Invalid, "credential has fewer than %d characters", shortest)
	}
	req.BootID, req.Runner = oneLine(req.BootID, 64), oneLine(req.Runner, 64)
	return nil
}

func (s *Server) identify(r *http.Request, from netip.Addr, req guestapi.FetchRequest) (lab.Sandbox, error) {
	now := time.Now()
	if req.Token == "" {
		sb, err := s.authenticate(r, "fetch", from)
		if err != nil {
			return sb, err
		}
		if err := s.store.Hello(r.Context(), sb.ID, req.HostKey, req.BootID, req.Runner, now); err != nil {
			return sb, fmt.Errorf("record hello: %w", err)
		}
		return sb, nil
	}
	token, credential := sha256.Sum256([]byte(req.Token)), sha256.Sum256([]byte(req.Credential))
	sb, err := s.store.Exchange(r.Context(), state.Exchange{
		Address: from, TokenHash: token[:], CredentialHash: credential[:],
		HostKey: req.HostKey, BootID: req.BootID, Runner: req.Runner, Now: now,
	})
	if errors.Is(err, fault.Denied) {
		return sb, s.deny(r.Context(), from, "fetch", "the token is not valid here")
	}
	if err != nil {
		return sb, fmt.Errorf("exchange token: %w", err)
	}
	return sb, nil
}

// payload puts together what the sandbox is told. Once the job that it was made
// for is over there is neither job nor secrets in it.
func (s *Server) payload(ctx context.Context, sb lab.Sandbox) (guestapi.Payload, error) {
	p := guestapi.Payload{Sandbox: sb.ID, VMID: sb.VMID}
	if sb.JobID != "" {
		j, err := s.store.Job(ctx, sb.JobID)
		if err != nil {
			return p, fmt.Errorf("read job: %w", err)
		}
		switch {
		case !over(j):
			p.Job = s.jobPayload(sb, j)
		case !j.Borrowed:
			return p, nil
		}
	}
	doc, err := s.openBundle(ctx, sb)
	if err != nil {
		return guestapi.Payload{}, err
	}
	p.Secrets = doc
	return p, nil
}

func (s *Server) jobPayload(sb lab.Sandbox, j lab.Job) *guestapi.Job {
	mode := j.Mode
	if mode == "" {
		mode = sb.Spec.AgentMode
	}
	attempt := 1
	if j.Stage != "" {
		attempt = 2 // it has been told before
	}
	return &guestapi.Job{
		ID: j.ID, Task: j.Task, Profile: j.Profile, Mode: mode, RepoURL: j.RepoURL, Ref: j.Ref,
		RepoDir: sb.Spec.RepoPath, Command: sb.Spec.AgentCommand, InnerSandbox: sb.Spec.InnerSandbox,
		InnerArgs: sb.Spec.InnerArgs, TTL: j.TTL, LogMaxBytes: s.limits().LogBytes,
		UploadMaxBytes: s.limits().FileBytes, Attempt: attempt,
	}
}

// permanent are the classes of a bundle that will not open at the next try.
var permanent = []fault.Class{fault.NotFound, fault.Denied, fault.Invalid, fault.Unsupported}

func secretsLater() error {
	return &fault.Error{Class: fault.Unavailable, Message: "secrets are not available", RetryAfter: 5 * time.Second}
}

// openBundle decrypts anew at each fetch. To the guest a failure is always one
// that may pass, so that it asks again; a job whose bundle will never open, or
// not before somebody has seen to it, is failed here, with the cause.
func (s *Server) openBundle(ctx context.Context, sb lab.Sandbox) (json.RawMessage, error) {
	if sb.Spec.Bundle == "" {
		return nil, nil
	}
	if s.secrets == nil {
		return nil, secretsLater()
	}
	octx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	b, err := s.secrets.Open(octx, sb.Spec.Bundle, "sandbox "+sb.ID)
	if err == nil {
		s.known.put(sb.ID, b.Document)
		return json.RawMessage(b.Document.Reveal()), nil
	}
	s.log.Error("open secrets bundle", "sandbox", sb.ID, "bundle", sb.Spec.Bundle, "err", err)
	if sb.JobID != "" && (slices.Contains(permanent, fault.ClassOf(err)) || errors.Is(err, fault.Precondition)) {
		message := fmt.Sprintf("open secrets bundle %q: %v", sb.Spec.Bundle, err)
		if hint := fault.HintOf(err); hint != "" {
			message += " (" + hint + ")"
		}
		rerr := s.store.JobReported(ctx, sb.JobID, lab.JobReport{
			Status: "failed", ExitCode: ownFailure, Message: message, At: time.Now(),
		})
		if rerr != nil {
			return nil, fmt.Errorf("fail job: %w", rerr)
		}
	}
	return nil, secretsLater()
}
