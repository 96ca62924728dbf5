package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"syscall"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"golang.org/x/crypto/ssh"

	"github.com/agentlab/agentlab/sdk/fault"
)

// loadIdentities reads the key file: age identities (X25519 or hybrid), one per
// line, or one OpenSSH private key. No error quotes the file.
func loadIdentities(path string) ([]age.Identity, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, identityError(openError(err, path), path)
	}
	defer f.Close()
	file, err := readSealed(f, path)
	if err != nil {
		return nil, err
	}
	switch content := bytes.TrimSpace(file.content); {
	case bytes.HasPrefix(content, []byte("age-encryption.org/")), bytes.HasPrefix(content, []byte("-----BEGIN AGE ENCRYPTED")):
		return nil, passphraseError(path)
	case bytes.HasPrefix(content, []byte("-----BEGIN")):
		return sshIdentity(file.content, path)
	}
	if bytes.Contains(file.content, []byte("AGE-PLUGIN-")) {
		return nil, fault.New(fault.Unsupported, "key file %s needs an age plugin, which is not run here", path)
	}
	ids, err := age.ParseIdentities(bytes.NewReader(file.content))
	if err != nil {
		return nil, fault.New(fault.Invalid, "key file %s holds no age identity that can be read", path).
			WithHint(oldKey, path)
	}
	return ids, nil
}

func sshIdentity(pem []byte, path string) ([]age.Identity, error) {
	id, err := agessh.ParseIdentity(pem)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, passphraseError(path)
	case err != nil:
		return nil, fault.New(fault.Invalid, "key file %s is not an OpenSSH private key of type ed25519 or rsa", path)
	}
	return []age.Identity{id}, nil
}

// passphraseError: nobody is there to type a passphrase when a daemon starts.
func passphraseError(path string) error {
	return fault.New(fault.Unsupported, "key file %s is protected by a passphrase", path).
		WithHint("use a key without a passphrase for this host, made with: age-keygen")
}

// oldKey is the remedy where the key is gone: a new one opens no bundle that is there.
const oldKey = "put the old key back; a new one, made with age-keygen -o %s, opens only bundles encrypted to it"

func identityError(err error, path string) error {
	if !errors.Is(err, fault.NotFound) {
		return err
	}
	// The bundle is there; what is missing is ours.
	return fault.New(fault.Precondition, "key file %s does not exist", path).
		WithHint(oldKey, path)
}

// stanzas names the recipients that an age header shows. age hides which X25519
// key a stanza is for; ssh stanzas carry a short hash of theirs.
func stanzas(header []byte) []string {
	var out []string
	for line := range strings.Lines(string(header)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "->" {
			continue
		}
		name := words[1]
		if strings.HasPrefix(name, "ssh-") && len(words) > 2 {
			name += " " + words[2]
		}
		out = append(out, name)
	}
	return out
}
