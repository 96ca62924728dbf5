package seedapply_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/kdomanski/iso9660"
	"golang.org/x/crypto/ssh"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/seedapply"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// guest is a file tree with a user and a seed disk.
type guest struct {
	t *testing.T
	layout.Layout
	hostname string
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	g := &guest{t: t, Layout: layout.Layout{Root: t.TempDir()}}
	g.put("/etc/passwd", "root:x:0:0::/root:/bin/sh\nagent:x:"+strconv.Itoa(os.Getuid())+":"+strconv.Itoa(os.Getgid())+"::/home/agent:/bin/bash\n")
	g.put("/etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\told\n")
	g.put("/sys/class/block/vda/x", "")
	g.put("/dev/vda", "no file system")
	if err := os.MkdirAll(g.At("/home/agent"), 0o755); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *guest) put(path, text string) {
	g.t.Helper()
	if err := os.MkdirAll(filepath.Dir(g.At(path)), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(g.At(path), []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) read(path string) string {
	g.t.Helper()
	b, err := os.ReadFile(g.At(path))
	if err != nil {
		g.t.Error(err)
	}
	return string(b)
}

func (g *guest) apply() error {
	return seedapply.Apply(g.t.Context(), seedapply.Config{
		Layout: g.Layout, DiskWait: time.Millisecond, Log: hclog.NewNullLogger(),
		SetHostname: func(n string) error { g.hostname = n; return nil },
	})
}

func documents(t *testing.T, id string) seed.Documents {
	t.Helper()
	d, err := seed.Render(seed.Input{
		Hostname: "otter", SandboxID: id, VMID: 1042, User: "agent", AuthorizedKey: "ssh-ed25519 AAAA op",
		MAC: "52:54:00:00:00:01", AddressCIDR: netip.MustParsePrefix("10.77.0.42/16"), Gateway: netip.MustParseAddr("10.77.0.1"),
		DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9")}, Controller: "http://10.77.0.1:8844", Token: secret.New("tok"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (g *guest) insert(device string, d seed.Documents) {
	g.t.Helper()
	g.volume(device, "cidata", map[string][]byte{"user-data": d.UserData, "meta-data": d.MetaData, "network-config": d.NetworkConfig})
}

func (g *guest) volume(device, label string, files map[string][]byte) {
	g.t.Helper()
	w, err := iso9660.NewWriter()
	if err != nil {
		g.t.Fatal(err)
	}
	defer w.Cleanup()
	for name, body := range files {
		if err := w.AddFile(strings.NewReader(string(body)), name); err != nil {
			g.t.Fatal(err)
		}
	}
	g.put("/sys/class/block/"+device+"/x", "")
	g.put("/dev/"+device, "")
	f, err := os.Create(g.At("/dev/" + device))
	if err != nil {
		g.t.Fatal(err)
	}
	defer f.Close()
	if err := w.WriteTo(f, label); err != nil {
		g.t.Fatal(err)
	}
}

func TestApply(t *testing.T) {
	for _, device := range []string{"vdb", "sr0"} {
		t.Run(device, func(t *testing.T) {
			g := newGuest(t)
			g.insert(device, documents(t, "sbx_1"))
			started := time.Now()
			if err := g.apply(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(started); took > time.Second {
				t.Errorf("took %v", took)
			}
			checkApplied(g)
		})
	}
}

func checkApplied(g *guest) {
	t := g.t
	if g.hostname != "otter" || g.read("/etc/hostname") != "otter\n" {
		t.Errorf("hostname %q", g.hostname)
	}
	if got := g.read("/etc/hosts"); got != "127.0.0.1\tlocalhost\n127.0.1.1\totter\n" {
		t.Errorf("hosts:\n%s", got)
	}
	want := "[Match]\nMACAddress=52:54:00:00:00:01\n\n[Network]\nDHCP=no\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nAddress=10.77.0.42/16\nGateway=10.77.0.1\n"
	if got := g.read("/etc/systemd/network/10-agentlab0.network"); got != want {
		t.Errorf("network:\n%s", got)
	}
	if got := g.read("/etc/resolv.conf"); got != "nameserver 9.9.9.9\n" {
		t.Errorf("resolv.conf: %s", got)
	}
	if got := g.read("/home/agent/.ssh/authorized_keys"); got != "ssh-ed25519 AAAA op\n" {
		t.Errorf("keys: %s", got)
	}
	if !strings.Contains(g.read("/etc/agentlab/bootstrap.json"), `"token": "tok"`) {
		t.Error("no token")
	}
	for path, mode := range map[string]os.FileMode{
		"/etc/agentlab/bootstrap.json": 0o600, "/etc/ssh/ssh_host_ed25519_key": 0o600, "/etc/ssh/ssh_host_ed25519_key.pub": 0o644,
		"/home/agent/.ssh": 0o700, "/home/agent/.ssh/authorized_keys": 0o600, "/var/lib/agentlab/seed.json": 0o600,
	} {
		if st, err := os.Stat(g.At(path)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want %v", path, st.Mode(), err, mode)
		}
	}
	signer, err := ssh.ParsePrivateKey([]byte(g.read("/etc/ssh/ssh_host_ed25519_key")))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(ssh.MarshalAuthorizedKey(signer.PublicKey())); got != g.read("/etc/ssh/ssh_host_ed25519_key.pub") {
		t.Errorf("public half %s does not belong to the private one", got)
	}
}

func TestApplyOncePerInstance(t *testing.T) {
	g := newGuest(t)
	g.insert("vdb", documents(t, "sbx_1"))
	if err := g.apply(); err != nil {
		t.Fatal(err)
	}
	key := g.read("/etc/ssh/ssh_host_ed25519_key")
	g.put("/etc/hostname", "mine\n")
	g.put("/home/agent/.ssh/authorized_keys", "only this\n")
	if err := g.apply(); err != nil {
		t.Fatal(err)
	}
	if g.read("/etc/hostname") != "mine\n" || g.read("/home/agent/.ssh/authorized_keys") != "only this\n" {
		t.Error("a reboot undid what the user changed")
	}
	if err := os.Remove(g.At("/dev/vdb")); err != nil {
		t.Fatal(err)
	}
	if err := g.apply(); err != nil {
		t.Errorf("without the disk: %v", err)
	}
	g.insert("vdb", documents(t, "sbx_2"))
	if err := g.apply(); err != nil {
		t.Fatal(err)
	}
	if g.read("/etc/hostname") != "otter\n" || g.read("/etc/ssh/ssh_host_ed25519_key") != key {
		t.Error("a new instance was not applied, or the host key changed")
	}
}

func TestApplyWithoutDisk(t *testing.T) {
	g := newGuest(t)
	if err := g.apply(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(g.HostKey()); err != nil {
		t.Error("no host key")
	}
	if _, err := os.Stat(g.SeedState()); err == nil {
		t.Error("a seed is remembered that never was")
	}
}

// A disk with a template's label marks the guest and changes nothing else; a
// seed beside it, or one that was applied before, goes before.
func TestTemplateDisk(t *testing.T) {
	g := newGuest(t)
	g.volume("vdb", channel.TemplateLabel, map[string][]byte{"empty": nil})
	started := time.Now()
	if err := seedapply.Apply(t.Context(), seedapply.Config{Layout: g.Layout, DiskWait: time.Minute, Log: hclog.NewNullLogger()}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(started); took > time.Second {
		t.Errorf("took %v", took)
	}
	if _, err := os.Stat(g.TemplateMark()); err != nil {
		t.Error("no mark")
	}
	if _, err := os.Stat(g.SeedState()); err == nil || g.read("/etc/hosts") != "127.0.0.1\tlocalhost\n127.0.1.1\told\n" {
		t.Error("the guest was changed")
	}
	if err := os.Remove(g.TemplateMark()); err != nil {
		t.Fatal(err)
	}
	g.insert("vdc", documents(t, "sbx_1"))
	for _, what := range []string{"both", "template's alone, later"} {
		if err := g.apply(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(g.TemplateMark()); err == nil || g.read("/etc/hostname") != "otter\n" {
			t.Errorf("%s: a guest with an identity became a template", what)
		}
		_ = os.Remove(g.At("/dev/vdc"))
	}
}

// ApplyDocuments does what a disk does, and a boot with that disk nothing more.
func TestApplyDocuments(t *testing.T) {
	g := newGuest(t)
	c := seedapply.Config{Layout: g.Layout, Log: hclog.NewNullLogger(), SetHostname: func(n string) error { g.hostname = n; return nil }}
	c.Layout = c.Layout.Lazily()
	s, err := seedapply.ApplyDocuments(c, documents(t, "sbx_1"))
	if err != nil || s.Meta.InstanceID != "sbx_1" {
		t.Fatalf("%v, %+v", err, s.Meta)
	}
	if _, err := seedapply.NewHostKey(c.Layout); err != nil {
		t.Fatal(err)
	}
	checkApplied(g)
	before := g.read("/etc/ssh/ssh_host_ed25519_key")
	g.put("/etc/hostname", "mine\n")
	g.insert("vdb", documents(t, "sbx_1"))
	if err := g.apply(); err != nil {
		t.Fatal(err)
	}
	if g.read("/etc/hostname") != "mine\n" || g.read("/etc/ssh/ssh_host_ed25519_key") != before {
		t.Error("a boot applied the seed again")
	}
	bad := documents(t, "sbx_2")
	bad.MetaData = []byte("{}")
	if _, err := seedapply.ApplyDocuments(c, bad); !errors.Is(err, fault.Invalid) {
		t.Errorf("a seed without instance: %v", err)
	}
}

func TestApplyMalformed(t *testing.T) {
	g := newGuest(t)
	g.insert("vdb", documents(t, "sbx_1"))
	whole := g.read("/dev/vdb")
	for _, cut := range []int{17 * 2048, 18 * 2048, 20 * 2048, len(whole) - 4096} {
		g.put("/dev/vdb", whole[:cut])
		if err := g.apply(); err == nil {
			t.Errorf("a volume cut to %d of %d bytes was applied", cut, len(whole))
		}
	}
	bad := documents(t, "sbx_1")
	bad.UserData = []byte("#cloud-config\nhostname: yaml\n")
	g.insert("vdb", bad)
	if err := g.apply(); err == nil {
		t.Error("a YAML seed was applied")
	}
	if _, err := os.Stat(g.SeedState()); err == nil {
		t.Error("a failed seed counts as applied")
	}
}

// Seeds as other tools make them, with and without long names.
func TestApplyForeignVolumes(t *testing.T) {
	tool, err := exec.LookPath("xorriso")
	if err != nil {
		t.Skip("needs xorriso")
	}
	for name, args := range map[string][]string{"rock ridge and joliet": {"-J", "-r"}, "plain": {"-iso-level", "1"}} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			d := documents(t, "sbx_1")
			dir := t.TempDir()
			for file, body := range map[string][]byte{"user-data": d.UserData, "meta-data": d.MetaData, "network-config": d.NetworkConfig} {
				if err := os.WriteFile(dir+"/"+file, body, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			g.put("/sys/class/block/vdb/x", "")
			mk := append([]string{"-as", "mkisofs", "-quiet", "-V", "CIDATA", "-o", g.At("/dev/vdb")}, append(args, dir)...)
			if name == "plain" {
				mk = append([]string{"-rockridge", "off"}, mk...)
			}
			if out, err := exec.Command(tool, mk...).CombinedOutput(); err != nil {
				t.Fatalf("%v %s", err, out)
			}
			if err := g.apply(); err != nil {
				t.Fatal(err)
			}
			checkApplied(g)
		})
	}
}
