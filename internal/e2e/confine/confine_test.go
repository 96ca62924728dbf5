package confine_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/agentlab/agentlab/core/pluginhost"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// inside is set in the copy of the test that runs where anybody may open
// /dev/net/tun, as on a host with udev; in a container often only root may.
const inside = "AGENTLAB_TEST_TUN"

const tunForAll = `mount -t tmpfs tmpfs /dev/net && mknod -m 0666 /dev/net/tun c 10 200 && exec "$@"`

// bed is a host with the real plugins, and nothing that they would act on.
type bed struct {
	t   *testing.T
	dir string
}

func newBed(t *testing.T) *bed {
	if os.Geteuid() != 0 {
		t.Skip("needs root, who has something to take away")
	}
	dir, err := os.MkdirTemp("/var/tmp", "alc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, sub := range []string{"run", "state", "bundles", "closed"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b := &bed{t, dir}
	b.generate("closed/age.key")
	return b
}

func (b *bed) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bed) generate(name string) {
	if _, err := exec.LookPath("age-keygen"); err != nil {
		b.t.Skip("needs age-keygen")
	}
	if out, err := exec.Command("age-keygen", "-o", b.path(name)).CombinedOutput(); err != nil {
		b.t.Fatalf("age-keygen: %v\n%s", err, out)
	}
}

func (b *bed) block(kind, name, config string) pluginhost.Block {
	b.t.Helper()
	file, diags := hclsyntax.ParseConfig([]byte(config), "config.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		b.t.Fatal(diags)
	}
	return pluginhost.Block{
		Kind: kind, Name: name, Path: testkit.Bin(b.t, plugin.BinaryPrefix+name), Body: file.Body,
		Range: hcl.Range{Filename: "config.hcl", Start: hcl.Pos{Line: 7}},
	}
}

// run runs the plugins and gives what they are by name.
func (b *bed) run(blocks ...pluginhost.Block) (*pluginhost.Host, error) {
	b.t.Helper()
	h := pluginhost.New(pluginhost.Config{
		Blocks: blocks, RunDir: b.path("run"), StateDir: b.path("state"), HostUUID: "00000000-0000-4000-8000-000000000001",
	}, hclog.NewNullLogger())
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
	})
	wait, stop := context.WithTimeout(b.t.Context(), time.Minute)
	defer stop()
	return h, h.Ready(wait)
}

func (b *bed) secretsConfig() string {
	return "identity = \"" + b.path("closed/age.key") + "\"\nbundle_dir = \"" + b.path("bundles") + "\"\n"
}

// what is the part of /proc/PID that confinement is about.
type what struct {
	User        string // root or other
	Caps        string // effective; permitted and bounding must be the same
	NoNewPrivs  string
	HostNetwork bool
}

func look(t *testing.T, pid int) what {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	text, err1 := os.ReadFile(filepath.Join(dir, "status"))
	theirs, err2 := os.Readlink(filepath.Join(dir, "ns/net"))
	ours, err3 := os.Readlink("/proc/self/ns/net")
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	field := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		field[key] = strings.TrimSpace(value)
	}
	out := what{User: "other", Caps: field["CapEff"], NoNewPrivs: field["NoNewPrivs"], HostNetwork: theirs == ours}
	if strings.HasPrefix(field["Uid"], "0\t") {
		out.User = "root"
	}
	if field["CapPrm"] != out.Caps || field["CapBnd"] != out.Caps {
		t.Errorf("process %d: permitted %s, effective %s, bounding %s", pid, field["CapPrm"], out.Caps, field["CapBnd"])
	}
	return out
}

func TestRealPlugins(t *testing.T) {
	if os.Getenv(inside) == "" {
		t.Run("tun for all", runInside)
	}
	b := newBed(t)
	h, err := b.run(b.block("network", "netfilter", ""), b.block("secrets", "secrets-age", b.secretsConfig()), b.block("hypervisor", "qemu", ""))
	if err != nil {
		t.Fatal(err)
	}
	netfilterUser := "root"
	if tunIsForAll() {
		netfilterUser = "other"
	}
	full := look(t, os.Getpid())
	for i, want := range []what{
		{netfilterUser, "0000000000001400", "1", true}, // CAP_NET_ADMIN, CAP_NET_BIND_SERVICE
		{"other", "0000000000000004", "1", false},      // CAP_DAC_READ_SEARCH
		full, // what starts VMs is left alone
	} {
		s := h.List()[i]
		if diff := cmp.Diff(want, look(t, s.PID)); diff != "" {
			t.Errorf("%s: %s", s.Name, diff)
		}
		d, err := h.Detail(s.Kind)
		if err != nil || d.Grant.Confined != (want.NoNewPrivs == "1") || (d.Grant.UID == 0) != (want.User == "root") {
			t.Errorf("%s: told %+v, %v", s.Name, d.Grant, err)
		}
	}
	// It reads a key that is root's alone, in a folder that is.
	if s := h.List()[1]; s.State != pluginhost.Ready {
		t.Errorf("secrets-age is %s: %s", s.State, s.Reason)
	}
	info, err := os.Stat(b.path("state/secrets-secrets-age"))
	if err != nil || info.Sys() == nil {
		t.Fatal(err)
	}
}

func tunIsForAll() bool {
	info, err := os.Stat("/dev/net/tun")
	return err != nil || info.Mode().Perm() == 0o666
}

func runInside(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", tunForAll, "sh", os.Args[0], "-test.run=^TestRealPlugins$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), "=== RUN") {
		t.Skipf("needs a mount namespace and a device: %s", out)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestBlockDecides(t *testing.T) {
	b := newBed(t)
	open := b.block("secrets", "secrets-age", b.secretsConfig())
	open.Unconfined = true
	h, err := b.run(open)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(look(t, os.Getpid()), look(t, h.List()[0].PID)); diff != "" {
		t.Errorf("confine = false: %s", diff)
	}
	enough := b.block("secrets", "secrets-age", b.secretsConfig())
	enough.Allow = []string{"CAP_DAC_READ_SEARCH"}
	if _, err := b.run(enough); err != nil {
		t.Errorf("all that it asks for: %v", err)
	}
	less := b.block("network", "netfilter", "")
	less.Allow = []string{"CAP_NET_ADMIN"}
	h, err = b.run(less)
	want := "config.hcl:7: the plugin asks for CAP_NET_BIND_SERVICE, network, which its block does not allow"
	if !tunIsForAll() {
		want = strings.Replace(want, "network", "root, network", 1)
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("less than it asks for: %v", err)
	}
	if s := h.List()[0]; s.PID != 0 || !strings.Contains(s.Message(time.Now()), want) {
		t.Errorf("%+v", s)
	}
	all := []string{"CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "network"}
	silent := b.block("network", "netfilter", "")
	silent.Allow = all
	if _, err = b.run(silent); (err == nil) != tunIsForAll() || err != nil && !strings.Contains(err.Error(), "add it to allow; it needs root because nobody else may open /dev/net/tun") {
		t.Errorf("all but what the device needs: %v", err)
	}
}
