package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"unicode"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// redactors remembers, per sandbox, the secrets it was given. The runner inside
// is the first layer that keeps them out of logs, this is the second.
type redactors struct {
	mu sync.Mutex
	// mu guards:
	all   map[string]*secret.Redactor
	order []string // oldest first
}

// mostKnown bounds the memory that destroyed sandboxes' entries take.
const mostKnown = 4096

func (r *redactors) put(sandboxID string, document secret.Value) {
	red := secret.NewRedactor(values(document)...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[string]*secret.Redactor{}
	}
	if _, ok := r.all[sandboxID]; !ok {
		r.order = append(r.order, sandboxID)
	}
	r.all[sandboxID] = red
	if len(r.order) > mostKnown {
		delete(r.all, r.order[0])
		r.order = slices.Delete(r.order, 0, 1)
	}
}

// get is nil for a sandbox that was given nothing since the daemon started.
func (r *redactors) get(sandboxID string) *secret.Redactor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[sandboxID]
}

// redactor knows what the sandbox was given. After a restart of the daemon it
// opens the bundle again; while that fails for a reason that may pass, the guest
// is asked to come later. A bundle that is gone for good leaves the runner's
// layer alone.
func (s *Server) redactor(ctx context.Context, sb lab.Sandbox) (*secret.Redactor, error) {
	if red := s.known.get(sb.ID); red != nil {
		return red, nil
	}
	if sb.Spec.Bundle == "" || s.secrets == nil {
		return secret.NewRedactor(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	b, err := s.secrets.Open(ctx, sb.Spec.Bundle, "redaction for sandbox "+sb.ID)
	switch {
	case err == nil:
		s.known.put(sb.ID, b.Document)
	case slices.Contains(permanent, fault.ClassOf(err)):
		s.log.Warn("output is redacted by the guest alone", "sandbox", sb.ID, "bundle", sb.Spec.Bundle, "err", err)
		s.known.put(sb.ID, secret.Value{})
	default:
		s.log.Warn("open secrets bundle", "sandbox", sb.ID, "bundle", sb.Spec.Bundle, "err", err)
		return nil, secretsLater()
	}
	return s.known.get(sb.ID), nil
}

// Redact masks what the sandbox was given as secrets. While they cannot be
// known it is an error, so that nothing leaves unread.
func (s *Server) Redact(ctx context.Context, sb lab.Sandbox, text []byte) ([]byte, error) {
	red, err := s.redactor(ctx, sb)
	if err != nil {
		return nil, err
	}
	return red.Bytes(text), nil
}

// notSecret are keys of the bundle whose values are names and settings.
var notSecret = map[string]bool{
	"version": true, "metadata": true, "username": true, "ssh_public_key": true, "known_hosts": true,
	"type": true, "comment": true, "hostname_template": true, "tags": true, "extra_args": true, "tailnet": true,
	"key": true, // of ssh.keys: public ones
}

// values gives every secret text in a bundle document.
func values(document secret.Value) []secret.Value {
	var tree map[string]any
	if json.Unmarshal([]byte(document.Reveal()), &tree) != nil {
		return nil
	}
	var out []secret.Value
	for section, v := range tree {
		switch section {
		case "env":
			out = append(out, texts(v, false)...)
		case "claude":
			out = append(out, claudeValues(v)...)
		default:
			if !notSecret[section] {
				out = append(out, texts(v, true)...)
			}
		}
	}
	return out
}

// claudeValues gives the environment in the settings; the rest is behaviour.
func claudeValues(v any) []secret.Value {
	m, _ := v.(map[string]any)
	settings, _ := m["settings"].(map[string]any)
	if text, ok := m["settings_json"].(string); ok {
		_ = json.Unmarshal([]byte(text), &settings)
	}
	return texts(settings["env"], false)
}

func texts(v any, skipNames bool) (out []secret.Value) {
	switch v := v.(type) {
	case string:
		return []secret.Value{secret.New(v)}
	case []any:
		for _, e := range v {
			out = append(out, texts(e, skipNames)...)
		}
	case map[string]any:
		for k, e := range v {
			if !skipNames || !notSecret[k] {
				out = append(out, texts(e, skipNames)...)
			}
		}
	}
	return out
}

// maskLines hides lines that hold a secret, each by as many bytes, since the
// offsets of a log are counted on both sides. It returns chunk itself when
// there is nothing to hide.
func maskLines(red *secret.Redactor, chunk []byte) []byte {
	if !red.Contains(chunk) {
		return chunk
	}
	out := make([]byte, 0, len(chunk))
	for line := range bytes.Lines(chunk) {
		if red.Contains(line) {
			line = masked(line)
		}
		out = append(out, line...)
	}
	if red.Contains(out) { // one that spans lines
		return masked(out)
	}
	return out
}

// masked keeps length and line ends.
func masked(b []byte) []byte {
	out := bytes.Repeat([]byte("*"), len(b))
	copy(out, secret.Mask)
	for i := range b {
		if b[i] == '\n' {
			out[i] = '\n'
		}
	}
	return out
}

// oneLine makes a guest's text fit for rows, logs and terminals: printable, in
// one line, at most n bytes.
func oneLine(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r == unicode.ReplacementChar || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}
