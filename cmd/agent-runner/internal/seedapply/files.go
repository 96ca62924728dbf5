package seedapply

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/fault"
)

// ensureHostKey makes the ed25519 host key unless there is one.
func ensureHostKey(l layout.Layout) error {
	if st, err := os.Stat(l.HostKey()); err == nil && st.Size() > 0 {
		if _, err := os.Stat(l.HostKey() + ".pub"); err == nil {
			return nil
		}
	}
	_, err := NewHostKey(l)
	return err
}

// NewHostKey makes an ed25519 host key in place of any that is there, and gives
// the line of its public half. The private half never leaves the guest.
func NewHostKey(l layout.Layout) (line string, err error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return "", fmt.Errorf("make host key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return "", fmt.Errorf("encode host key: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encode host key: %w", err)
	}
	text := ssh.MarshalAuthorizedKey(key)
	if err := l.Write(l.HostKey()+".pub", text, 0o644, layout.Owner{}); err != nil {
		return "", fmt.Errorf("write host key: %w", err)
	}
	if err := l.Write(l.HostKey(), pem.EncodeToMemory(block), 0o600, layout.Owner{}); err != nil {
		return "", fmt.Errorf("write host key: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// writeOne writes one of the seed's files.
func writeOne(l layout.Layout, f seed.File) error {
	mode, err := f.Mode()
	if err != nil {
		return err
	}
	content := []byte(f.Content)
	if f.Encoding == "b64" || f.Encoding == "base64" {
		if content, err = base64.StdEncoding.DecodeString(f.Content); err != nil {
			return fault.New(fault.Invalid, "decode %s: %w", f.Path, err)
		}
	}
	var owner layout.Owner
	if name, _, _ := strings.Cut(f.Owner, ":"); name != "" && name != "root" {
		login, err := l.Login(name)
		if err != nil {
			return fmt.Errorf("write %s: %w", f.Path, err)
		}
		owner = layout.Owner{UID: login.UID, GID: login.GID}
	}
	if err := l.Write(l.At(f.Path), content, os.FileMode(mode), owner); err != nil {
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	return nil
}

// authorize lets the user's keys log in.
func authorize(l layout.Layout, u seed.User) error {
	if len(u.AuthorizedKeys) == 0 {
		return nil
	}
	login, err := l.Login(u.Name)
	if err != nil {
		return fmt.Errorf("authorize keys: %w", err)
	}
	return AuthorizeKeys(l, login, u.AuthorizedKeys)
}

// AuthorizeKeys adds the lines that are missing to the user's authorized_keys.
func AuthorizeKeys(l layout.Layout, login layout.Login, keys []string) error {
	owner := layout.Owner{UID: login.UID, GID: login.GID}
	path := l.At(filepath.Join(login.Home, ".ssh", "authorized_keys"))
	if err := layout.MakeDir(filepath.Dir(path), 0o700, owner); err != nil {
		return fmt.Errorf("authorize keys: %w", err)
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("authorize keys: %w", err)
	}
	lines := strings.Split(strings.TrimRight(string(old), "\n"), "\n")
	if len(old) == 0 {
		lines = nil
	}
	added := false
	for _, k := range keys {
		if k = strings.TrimSpace(k); k != "" && !slices.Contains(lines, k) {
			lines, added = append(lines, k), true
		}
	}
	if !added {
		return nil
	}
	if err := l.Write(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600, owner); err != nil {
		return fmt.Errorf("authorize keys: %w", err)
	}
	return nil
}

// nameInHosts makes the machine's own name resolve, and leaves every other
// line alone.
func nameInHosts(l layout.Layout, name string) error {
	path := l.At("/etc/hosts")
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read hosts: %w", err)
	}
	lines := []string{}
	for line := range strings.Lines(string(old)) {
		line = strings.TrimRight(line, "\n")
		if field := strings.Fields(line); len(field) > 0 && field[0] == "127.0.1.1" {
			continue
		}
		lines = append(lines, line)
	}
	if !strings.Contains(string(old), "localhost") {
		lines = append(lines, "127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost")
	}
	lines = append(lines, "127.0.1.1\t"+name)
	if err := l.Write(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644, layout.Owner{}); err != nil {
		return fmt.Errorf("write hosts: %w", err)
	}
	return nil
}
