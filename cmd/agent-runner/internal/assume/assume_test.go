package assume

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/vishvananda/netlink"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/card"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/cardtest"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/secret"
)

const (
	templateID = "11111111111141118111111111111111"
	// staleKey stands for one that a template should not have.
	staleKey = "of the template"
)

// copied is a guest as it wakes up: a copy of one template.
type copied struct {
	t *testing.T
	layout.Layout
	did  []string // what its kernel was told
	fail string   // at this one it refuses
}

func newCopy(t *testing.T) *copied {
	t.Helper()
	g := &copied{t: t, Layout: layout.Layout{Root: t.TempDir()}}
	for path, text := range map[string]string{
		"/etc/passwd":                   "agent:x:0:0::/home/agent:/bin/bash\n",
		"/etc/machine-id":               templateID + "\n",
		"/etc/ssh/ssh_host_ed25519_key": staleKey, "/etc/ssh/ssh_host_ed25519_key.pub": staleKey,
		"/run/agentlab/template": "", "/home/agent/.profile": "",
		"/run/log/journal/" + templateID + "/system.journal": "first",
	} {
		put(t, g.At(path), text)
	}
	return g
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (g *copied) read(path string) string {
	g.t.Helper()
	b, err := os.ReadFile(g.At(path))
	if err != nil {
		g.t.Error(err)
	}
	return strings.TrimSpace(string(b))
}

func (g *copied) note(what, with string) error {
	g.did = append(g.did, what+" "+with)
	if what == g.fail {
		return errors.New("refused")
	}
	return nil
}

func (g *copied) kernel() Kernel {
	return Kernel{
		AddEntropy: func(b []byte) error { return g.note("entropy", string(b[:2])) },
		SetMAC:     func(mac string) error { return g.note("mac", mac) },
		Configure: func(n seed.NetworkConfig, mac string) error {
			e, err := card.EthernetOf(n, mac)
			if _, statErr := os.Stat(g.HostKey()); statErr != nil || g.read(g.relKey()) == staleKey {
				g.t.Error("the address is there before the host key")
			}
			return errors.Join(err, g.note("address", strings.Join(e.Addresses, ",")))
		},
		SetHostname: func(name string) error { return g.note("hostname", name) },
		SetTime: func(at time.Time) error {
			if _, err := os.Stat(g.SeedState()); err != nil {
				g.t.Error("the clock is set before all else is done")
			}
			// To the hour: what passes in a test is added, and may be seconds.
			return g.note("clock", at.UTC().Truncate(time.Hour).Format(time.DateTime))
		},
	}
}

func (g *copied) relKey() string { return strings.TrimPrefix(g.HostKey(), g.Root) }

func (g *copied) assume(n byte) (channel.Assumed, error) {
	g.t.Helper()
	docs, err := seed.Render(seed.Input{
		Hostname: "otter-" + string(n), SandboxID: "sbx_" + string(n), VMID: 1042, User: "agent", AuthorizedKey: "ssh-ed25519 AAAA op",
		MAC: "52:54:00:00:00:0" + string(n), AddressCIDR: netip.MustParsePrefix("10.77.0." + string(n) + "/16"), Gateway: netip.MustParseAddr("10.77.0.254"),
		Controller: "http://10.77.0.254:8844", Token: secret.New("token-" + string(n)),
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return Run(g.t.Context(), Config{Layout: g.Layout, Kernel: g.kernel(), Log: hclog.NewNullLogger()}, channel.Identity{
		MAC: "52:54:00:00:00:0" + string(n), Seed: channel.Seed(docs), Entropy: []byte{n, n},
		Time: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC),
	}, time.Now().Add(-time.Hour))
}

// identity is all in which two copies must differ.
func (g *copied) identity() map[string]string {
	out := map[string]string{}
	for _, path := range []string{
		"/etc/hostname", "/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key.pub",
		"/etc/agentlab/bootstrap.json", "/etc/systemd/network/10-agentlab0.network", "/var/lib/agentlab/credential", "/var/lib/agentlab/seed.json",
	} {
		out[path] = g.read(path)
	}
	return out
}

func TestTwoCopiesDiffer(t *testing.T) {
	a, b := newCopy(t), newCopy(t)
	for n, g := range map[byte]*copied{'1': a, '2': b} {
		got, err := g.assume(n)
		if err != nil {
			t.Fatal(err)
		}
		if got.HostKey != g.read("/etc/ssh/ssh_host_ed25519_key.pub") {
			t.Errorf("host key %q is not the one in the file", got.HostKey)
		}
		var names []string
		for _, d := range got.Duties {
			names = append(names, d.Name)
		}
		if want := "entropy mac seed machine-id host-key credential flush address disk clock mark"; strings.Join(names, " ") != want {
			t.Errorf("duties %q", names)
		}
		if mark := g.read("/run/agentlab/template"); mark != layout.NamedMark {
			t.Errorf("the mark says %q", mark)
		}
	}
	other := b.identity()
	for path, text := range a.identity() {
		if text == "" || text == other[path] || text == staleKey || text == templateID {
			t.Errorf("%s is the same in both: %q", path, text)
		}
	}
	want := []string{"entropy 11", "mac 52:54:00:00:00:01", "hostname otter-1", "address 10.77.0.1/16", "clock 2030-01-01 01:00:00"}
	if diff := cmp.Diff(want, a.did); diff != "" {
		t.Errorf("the kernel was told, in this order: %s", diff)
	}
}

// What cannot be done ends the whole: nothing after it, and the mark stays.
func TestDutyFails(t *testing.T) {
	for _, what := range []string{"entropy", "mac", "hostname", "address", "clock"} {
		g := newCopy(t)
		g.fail = what
		if _, err := g.assume('1'); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: error %v", what, err)
		}
		if last := g.did[len(g.did)-1]; !strings.HasPrefix(last, what) {
			t.Errorf("after %s came %s", what, last)
		}
		if mark := g.read("/run/agentlab/template"); mark != "" {
			t.Errorf("%s: the mark says %q", what, mark)
		}
	}
}

func TestMachineID(t *testing.T) {
	g := newCopy(t)
	put(t, g.At("/run/machine-id"), templateID)
	if err := errors.Join(os.MkdirAll(g.At("/var/lib/dbus"), 0o755), os.Symlink("/etc/machine-id", g.At("/var/lib/dbus/machine-id"))); err != nil {
		t.Fatal(err)
	}
	if err := newMachineID(g.Layout); err != nil {
		t.Fatal(err)
	}
	id := g.read("/etc/machine-id")
	if !regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$`).MatchString(id) || id == templateID || g.read("/run/machine-id") != id {
		t.Errorf("machine ids %q and %q", id, g.read("/run/machine-id"))
	}
	if link, err := os.Readlink(g.At("/var/lib/dbus/machine-id")); err != nil || link != "/etc/machine-id" {
		t.Errorf("dbus has %q, %v", link, err)
	}
	if got := g.read("/run/log/journal/" + id + "/system.journal"); got != "first" {
		t.Errorf("the journal under the new id: %q", got)
	}
	if err := newMachineID(layout.Layout{Root: t.TempDir()}); err != nil {
		t.Errorf("without an old one: %v", err)
	}
}

// The rehearsal finds the same way and changes nothing of the guest.
func TestRehearse(t *testing.T) {
	g := newCopy(t)
	nic := cardtest.New(t, g.Layout)
	before := tree(t, g.Root)
	if err := nic(func() error { return Rehearse(t.Context(), g.Layout) }); err != nil {
		t.Fatal(err)
	}
	after := tree(t, g.Root)
	added := slices.DeleteFunc(slices.Clone(after), func(s string) bool { return slices.Contains(before, s) })
	if diff := cmp.Diff([]string{"etc/agentlab", "etc/systemd", "etc/systemd/network", "home/agent/.ssh", "var", "var/lib", "var/lib/agentlab"}, added); diff != "" {
		t.Errorf("added: %s", diff)
	}
	if g.read("/etc/machine-id") != templateID || g.read("/etc/ssh/ssh_host_ed25519_key") != staleKey {
		t.Error("the rehearsal was for real")
	}
}

// One in earnest tells the kernel what it knows, and has nothing of it left, though
// it is the second, or follows one whose program was killed.
func TestRehearseInEarnest(t *testing.T) {
	g := newCopy(t)
	in := cardtest.New(t, g.Layout)
	if err := errors.Join(os.MkdirAll(g.At("/dev"), 0o755), os.Symlink("/dev/urandom", g.At(randomDevice))); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{"/run/agentlab/rehearsal-1/x", "/var/lib/agentlab/rehearsal-2/x"} {
		put(t, g.At(left), "")
	}
	// Made by the rehearsal before the freeze.
	for _, dir := range []string{"/etc/agentlab", "/etc/systemd/network", "/home/agent/.ssh"} {
		if err := os.MkdirAll(g.At(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var theirs []string
	e := Earnest{Entropy: make([]byte, 64), Controller: "http://127.0.0.1:1", Then: func(there layout.Layout) error {
		boot, err := os.ReadFile(there.Bootstrap())
		key, keyErr := os.ReadFile(there.HostKey())
		if theirs = append(theirs, string(key)); !strings.Contains(string(boot), "127.0.0.1:1") {
			t.Errorf("the seed says %s", boot)
		}
		return errors.Join(err, keyErr)
	}}
	var set []string
	perform := func() error {
		k, done := earnest(g.Layout, e.Entropy)
		defer done()
		k.SetTime = func(time.Time) error { set = append(set, "clock"); return nil } // not this machine's
		return performEarnest(t.Context(), g.Layout, e, k)
	}
	if err := in(perform); err != nil {
		t.Fatal(err)
	}
	before := tree(t, g.Root)
	if err := in(perform); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, tree(t, g.Root)); diff != "" {
		t.Errorf("left: %s", diff)
	}
	for _, path := range before {
		if strings.Contains(path, "rehears") {
			t.Errorf("%s is left", path)
		}
	}
	slices.Sort(theirs)
	if len(slices.Compact(theirs)) != 4 || len(set) != 4 {
		t.Errorf("%d different keys, clock set %d times: not twice in each", len(theirs), len(set))
	}
	if g.read("/etc/machine-id") != templateID || g.read("/etc/ssh/ssh_host_ed25519_key") != staleKey || g.read("/run/agentlab/template") != "" {
		t.Error("the rehearsal was for real")
	}
	err := in(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if mac := link.Attrs().HardwareAddr.String(); len(addrs) != 0 || mac != "02:00:00:00:00:09" || link.Attrs().Flags&1 == 0 {
			t.Errorf("addresses %v, MAC address %s, flags %v", addrs, mac, link.Attrs().Flags)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	g.fail = "then"
	e.Then = func(layout.Layout) error { return g.note("then", "") }
	if err := in(perform); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("one that is cut short: %v", err)
	}
	if diff := cmp.Diff(before, tree(t, g.Root)); diff != "" {
		t.Errorf("left when cut short: %s", diff)
	}
	if err := os.Remove(g.At(randomDevice)); err != nil {
		t.Fatal(err)
	}
	put(t, g.At(randomDevice), "no pool")
	if err := in(perform); err == nil || !strings.Contains(err.Error(), "assume entropy") {
		t.Errorf("without random numbers of its own: %v", err)
	}
}

func tree(t *testing.T, root string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		out = append(out, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
