package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/agentlab/agentlab/sdk/fault"
)

func TestOpenRefusesNames(t *testing.T) {
	b := newBench(t)
	outside := filepath.Join(filepath.Dir(b.dir), "outside.age")
	b.write(outside, seal(t, document, b.key.Recipient()))
	for _, name := range []string{"", ".", "..", "../outside", "/etc/passwd", "a/b", ".hidden", "a\x00b", strings.Repeat("a", 200)} {
		if _, err := b.Open(t.Context(), name, "test"); !errors.Is(err, fault.Invalid) {
			t.Errorf("Open(%q): %v, want invalid", name, err)
		}
		if _, err := b.Describe(t.Context(), name); !errors.Is(err, fault.Invalid) {
			t.Errorf("Describe(%q): %v, want invalid", name, err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(b.dir, "link.age")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open(t.Context(), "link", "test"); err == nil {
		t.Error("a link led out of the directory")
	}
	b.wantFault("nothing", fault.NotFound, "bundle nothing does not exist", "nothing.age")
}

// Truncation at every length: never a document, whatever age released before.
func TestOpenTruncated(t *testing.T) {
	b := newBench(t)
	long := document + strings.Repeat("# filler filler filler\n", 4000) // several chunks of 64 KiB
	raw := seal(t, long, b.key.Recipient())
	for _, n := range []int{0, 1, 20, 150, 200, 300, 64<<10 + 220, len(raw) - 1} {
		b.put("cut.age", raw[:n])
		b.wantFault("cut", fault.Invalid, "cut.age is ", "")
	}
	b.put("cut.age", raw)
	b.wantOpen("cut")
	raw[len(raw)/2] ^= 1
	b.put("cut.age", raw)
	b.wantFault("cut", fault.Invalid, "cut short or damaged", "again")
	arm := armored(t, seal(t, document, b.key.Recipient()))
	b.put("arm.age", arm[:len(arm)-40])
	b.wantFault("arm", fault.Invalid, "arm.age is ", "")
}

func TestOpenRefusesContent(t *testing.T) {
	b := newBench(t)
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	b.put("foreign.age", seal(t, document, stranger.Recipient()))
	b.wantFault("foreign", fault.Denied, "no key in "+b.identity, "age-keygen -y")
	b.put("plain.age", []byte(document))
	b.wantFault("plain", fault.Invalid, "not an age file", "")
	b.put("typo.age", seal(t, "version: 1\nenvv: {A: "+value+"}", b.key.Recipient()))
	b.wantFault("typo", fault.Invalid, "envv (line 2): unknown key", "")
	b.put("huge.age", seal(t, document+strings.Repeat("#", 1<<20), b.key.Recipient()))
	b.wantFault("huge", fault.Invalid, "larger than", "")
}

func TestOpenRefusesModes(t *testing.T) {
	b := newBench(t)
	path := filepath.Join(b.dir, "default.age")
	b.put("default.age", seal(t, document, b.key.Recipient()))
	for _, target := range []string{path, b.identity} {
		for _, mode := range []os.FileMode{0o644, 0o604, 0o660, 0o666} {
			if err := os.Chmod(target, mode); err != nil {
				t.Fatal(err)
			}
			b.wantFault("default", fault.Denied, target+" has mode", "chmod 600 "+target)
		}
		if err := os.Chmod(target, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(b.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	b.wantFault("default", fault.Denied, b.dir+" has mode", "chmod 700")
	if err := os.Chmod(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.wantOpen("default")
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12345, 0); err != nil {
			t.Fatal(err)
		}
		b.wantFault("default", fault.Denied, "belongs to uid 12345", "chown 0")
	}
}

func TestOpenRefusesIdentities(t *testing.T) {
	b := newBench(t)
	b.put("default.age", seal(t, document, b.key.Recipient()))
	if err := os.Remove(b.identity); err != nil {
		t.Fatal(err)
	}
	b.wantFault("default", fault.Precondition, "does not exist", "put the old key back; a new one, made with age-keygen -o "+b.identity)
	r, err := age.NewScryptRecipient("passphrase")
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(10)
	locked := seal(t, b.key.String(), r)
	tests := []struct {
		name, text string
		content    []byte
		class      fault.Class
	}{
		{"encrypted", "protected by a passphrase", locked, fault.Unsupported},
		{"encrypted, armored", "protected by a passphrase", armored(t, locked), fault.Unsupported},
		{"plugin", "needs an age plugin", []byte("AGE-PLUGIN-YUBIKEY-1XXX\n"), fault.Unsupported},
		{"damaged", "no age identity", []byte(b.key.String()[:40] + "\n"), fault.Invalid},
		{"empty", "no age identity", nil, fault.Invalid},
		{"bad pem", "not an OpenSSH private key", []byte("-----BEGIN X-----\n" + value), fault.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b.t = t
			b.write(b.identity, tt.content)
			b.wantFault("default", tt.class, tt.text, "")
		})
	}
	b.t = t
	sshKeygen(t, b.identity, "a passphrase")
	b.wantFault("default", fault.Unsupported, "protected by a passphrase", "without a passphrase")
}
