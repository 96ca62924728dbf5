package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	value    = "hunter2-hunter2"
	document = "version: 1\nenv:\n  API_KEY: " + value + "\n"
)

// bench is a driver over a fresh directory with one key.
type bench struct {
	*driver
	t   *testing.T
	key *age.X25519Identity
	log *bytes.Buffer
}

func newBench(t *testing.T) *bench {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir, log := t.TempDir(), &bytes.Buffer{}
	b := &bench{t: t, key: key, log: log, driver: &driver{
		identity: filepath.Join(dir, "age.key"), dir: filepath.Join(dir, "secrets"),
		log: hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Trace}),
	}}
	b.write(b.identity, []byte("# a comment\n"+key.String()+"\n"))
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) write(path string, content []byte) {
	b.t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) put(name string, content []byte) { b.write(filepath.Join(b.dir, name), content) }

func seal(t *testing.T, text string, to ...age.Recipient) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func armored(t *testing.T, raw []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := armor.NewWriter(&out)
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (b *bench) wantOpen(name string) {
	b.t.Helper()
	got, err := b.Open(b.t.Context(), name, "job job_x")
	if err != nil {
		b.t.Fatalf("Open(%s): %v", name, err)
	}
	if want := `{"env":{"API_KEY":"` + value + `"},"version":1}`; got.Document.Reveal() != want {
		b.t.Errorf("document = %s, want %s", got.Document.Reveal(), want)
	}
	desc, err := b.Describe(b.t.Context(), name)
	if err != nil {
		b.t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"env.API_KEY", "version"}, desc.Keys); diff != "" || desc.Version != got.Version || desc.Updated.IsZero() {
		b.t.Errorf("description %+v does not fit the bundle: %s", desc, diff)
	}
	b.wantSilent("log", b.log.String())
}

// wantFault checks Open's class, text and hint, and that Describe calls the
// same thing a problem.
func (b *bench) wantFault(name string, class fault.Class, text, hint string) {
	b.t.Helper()
	_, err := b.Open(b.t.Context(), name, "test")
	if !errors.Is(err, class) || !strings.Contains(err.Error(), text) || !strings.Contains(fault.HintOf(err), hint) {
		b.t.Fatalf("Open: %v (class %s, hint %q), want %s with %q and hint %q", err, fault.ClassOf(err), fault.HintOf(err), class, text, hint)
	}
	b.wantSilent("error", err.Error()+fault.HintOf(err))
	desc, err := b.Describe(b.t.Context(), name)
	if class == fault.NotFound {
		if !errors.Is(err, fault.NotFound) {
			b.t.Errorf("Describe: %v, want not found", err)
		}
		return
	}
	all := strings.Join(desc.Problems, "\n")
	if err != nil || !strings.Contains(all, text) {
		b.t.Errorf("Describe: problems %q (%v), want one with %q", all, err, text)
	}
	b.wantSilent("description", all)
}

func (b *bench) wantSilent(what, s string) {
	b.t.Helper()
	if strings.Contains(s, value) || strings.Contains(s, b.key.String()) {
		b.t.Errorf("the %s tells a secret: %s", what, s)
	}
}

func TestOpen(t *testing.T) {
	b := newBench(t)
	b.put("default-2026.01.age", seal(t, document, b.key.Recipient()))
	b.put("armored.age", append([]byte("\n"), armored(t, seal(t, document, b.key.Recipient()))...))
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	b.put("shared.age", seal(t, document, other.Recipient(), b.key.Recipient()))
	b.put("notes.txt", []byte("x"))
	b.put("plain.yaml", []byte(document))
	for _, name := range []string{"default-2026.01", "armored", "shared"} {
		b.wantOpen(name)
	}
	names, err := b.List(t.Context())
	if diff := cmp.Diff([]string{"armored", "default-2026.01", "shared"}, names); diff != "" || err != nil {
		t.Errorf("List: %v %s", err, diff)
	}
	desc, err := b.Describe(t.Context(), "shared")
	if diff := cmp.Diff([]string{"X25519", "X25519"}, desc.Recipients); diff != "" || err != nil {
		t.Errorf("recipients: %v %s", err, diff)
	}
}

// What keeps a bundle from opening is a problem, what could be better is not.
func TestDescribeTellsProblemsFromWarnings(t *testing.T) {
	b := newBench(t)
	b.put("short.age", seal(t, "version: 1\nenv:\n  A: abc\n", b.key.Recipient()))
	desc, err := b.Describe(t.Context(), "short")
	if err != nil || len(desc.Problems) != 0 || len(desc.Warnings) != 1 || !strings.Contains(desc.Warnings[0], "env.A is shorter") {
		t.Errorf("a short value: %+v, %v", desc, err)
	}
	if _, err := b.Open(t.Context(), "short", "test"); err != nil {
		t.Error(err)
	}
	b.put("form.age", seal(t, "version: 1\nenw:\n  A: abcdefgh\ngit: [x]\n", b.key.Recipient()))
	if desc, err := b.Describe(t.Context(), "form"); err != nil || len(desc.Problems) != 2 || len(desc.Keys) == 0 {
		t.Errorf("wrong keys: %+v, %v", desc, err)
	}
	b.wantFault("form", fault.Invalid, "enw (line 2): unknown key", "")
}

func TestOpenHybrid(t *testing.T) {
	b := newBench(t)
	key, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	b.write(b.identity, []byte(key.String()+"\n"))
	b.put("default.age", seal(t, document, key.Recipient()))
	b.wantOpen("default")
}

func sshKeygen(t *testing.T, path, passphrase string) age.Recipient {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("needs ssh-keygen")
	}
	_ = os.Remove(path)
	out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", path).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	pub, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	r, err := agessh.ParseRecipient(string(pub))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestOpenWithSSHKey(t *testing.T) {
	b := newBench(t)
	b.put("default.age", seal(t, document, sshKeygen(t, b.identity, "")))
	b.wantOpen("default")
	desc, err := b.Describe(t.Context(), "default")
	if err != nil || len(desc.Recipients) != 1 || !strings.HasPrefix(desc.Recipients[0], "ssh-ed25519 ") {
		t.Errorf("recipients = %q, %v", desc.Recipients, err)
	}
}

// The age program's own output, and a passphrase that nobody can type.
func TestOpenAgeProgram(t *testing.T) {
	if _, err := exec.LookPath("age"); err != nil {
		t.Skip("needs age")
	}
	b := newBench(t)
	src := filepath.Join(t.TempDir(), "src.yaml")
	b.write(src, []byte(document))
	for name, args := range map[string][]string{"binary": nil, "ascii": {"-a"}} {
		args = append(args, "-r", b.key.Recipient().String(), "-o", filepath.Join(b.dir, name+".age"), src)
		if out, err := exec.CommandContext(t.Context(), "age", args...).CombinedOutput(); err != nil {
			t.Fatalf("age: %v: %s", err, out)
		}
		if err := os.Chmod(filepath.Join(b.dir, name+".age"), 0o600); err != nil {
			t.Fatal(err)
		}
		b.wantOpen(name)
	}
	r, err := age.NewScryptRecipient("passphrase")
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(10)
	b.put("typed.age", seal(t, document, r))
	b.wantFault("typed", fault.Unsupported, "protected by a passphrase", "age -r")
}

func TestOpenPlaintext(t *testing.T) {
	b := newBench(t)
	b.put("default.yaml", []byte(document))
	b.put("other.sops.yaml", []byte(document))
	b.wantFault("default", fault.NotFound, "does not exist", "default.yaml is not encrypted")
	b.allowPlaintext = true
	b.wantOpen("default")
	if names, err := b.List(t.Context()); err != nil || !cmp.Equal(names, []string{"default"}) {
		t.Errorf("List = %q, %v", names, err)
	}
}
