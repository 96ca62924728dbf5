package badinput_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/sdk/fault"
)

// newKey makes an age identity and a bundle that only it opens.
func newKey(t *testing.T) (identity, bundle string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, id.Recipient())
	if err == nil {
		_, err = io.WriteString(w, "version: 1\nenv:\n  TOKEN: planted-s1mW7rQ4\n")
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return id.String() + "\n", out.String()
}

// TestKey: a key that is not private, not there or another one. The daemon works,
// its status tells, and nothing that needs a secret is begun before it is mended.
func TestKey(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	identity, bundle := newKey(t)
	stranger, _ := newKey(t)
	key := b.put("keys/age.key", identity, 0o600)
	b.put("secrets/default.age", bundle, 0o600)
	b.WriteConfig(t, "secrets_bundle = \"default\"\n"+b.Config(b.Block("hypervisor", b.Plugin, "")+b.Block("network", b.Plugin, "")+
		"\nplugin \"secrets\" \"secrets-age\" {\n  path = \""+testkit.Bin(t, "agentlab-plugin-secrets-age")+
		"\"\n\n  config {\n    identity = \""+key+"\"\n    bundle_dir = \""+b.path("secrets")+"\"\n  }\n}\n"))
	b.Start(t)
	for _, tc := range []struct {
		name   string
		spoil  func()
		says   string
		status bool // the plugin's health tells, too
	}{
		{"readable by everybody", func() { b.chmod(key, 0o644) }, key + " has mode 0644, so others may read or change it (chmod 600 " + key + ")", true},
		{"another's", func() { b.chown(key) }, key + " belongs to uid 65534 (chown 0 " + key + ")", true},
		{"not there", func() { _ = os.Remove(key) }, "key file " + key + " does not exist (put the old key back; a new one, made with age-keygen -o " + key + ", opens only bundles encrypted to it)", true},
		{"no key", func() { b.put("keys/age.key", "hello\n", 0o600) }, "key file " + key + " holds no age identity", true},
		{"another key", func() { b.put("keys/age.key", stranger, 0o600) }, "no key in " + key + " opens " + b.path("secrets/default.age"), false},
		{"damaged bundle", func() { b.put("secrets/default.age", bundle[:len(bundle)-20], 0o600) }, b.path("secrets/default.age") + " is cut short or damaged", false},
	} {
		_ = os.Remove(key)
		b.put("keys/age.key", identity, 0o600)
		tc.spoil()
		for code, args := range map[int][]string{
			5:   {"sandbox", "new", "--profile", "plain"},
			125: {"job", "run", "--repo", url, "--profile", "plain", "--task", "x"},
		} {
			b.refuse(refusal{code, fault.Precondition, []string{`profile "plain": secrets bundle "default" cannot be opened: ` + tc.says}, "on the host"}, args...)
		}
		if tc.status {
			if out := b.Run("doctor").Stdout; !strings.Contains(out, "is degraded: "+tc.says) { // it asks, so at once
				t.Errorf("doctor does not tell:\n%s", out)
			}
			testkit.Eventually(t, 20*time.Second, "status tells of the key that is "+tc.name, func() bool {
				out := b.Run("status").Stdout
				return strings.Contains(out, " degraded ") && strings.Contains(out, tc.says)
			})
		}
		if t.Failed() {
			t.Fatalf("the case was %q", tc.name)
		}
	}
}
