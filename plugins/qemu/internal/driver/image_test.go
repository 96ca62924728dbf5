package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/qmp"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	// pastStart is long enough for a clone to come to rest under emulation.
	pastStart = 8 * time.Second
	// maxPrivate is what an idle clone may have of its own, in KiB.
	maxPrivate = 80 << 10
	// hostCache is the default of memory_cache.
	hostCache = "/var/cache/agentlab/memory"
	// What the tests of whole sandboxes give theirs, so that all start from the same
	// template.
	imageCores = 2
	imageMiB   = 768
)

// newImageLab has AgentLab's own image, and the memory templates of this host.
func newImageLab(t *testing.T) (*lab, *Driver) {
	t.Helper()
	image := os.Getenv("AGENTLAB_TEMPLATE")
	if image == "" {
		t.Skip("needs a guest image; set AGENTLAB_TEMPLATE to what scripts/image.sh prints")
	}
	l := newLab(t, testhost.Idle)
	l.config.MemoryTemplates, l.config.TBMiB, l.config.Templates = Manual, 256, []string{image}
	l.config.MemoryCache = hostCache
	d := l.driver()
	d.greet = func(conn net.Conn) guest { return channel.New(conn) }
	common.lookForImage.Do(func() {
		tpl, err := d.catalog.Find("9000")
		if err != nil {
			t.Fatal(err)
		}
		fit, err := d.fit(testContext(t), sized(tpl, imageCores, imageMiB<<20, 0))
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.cache.Find(fit.Key())
		common.newImage = errors.Is(err, fault.NotFound)
	})
	return l, d
}

// The real guest image is frozen, once per host, and two VMs start from it that are
// each itself.
func TestImageStartsFromMemory(t *testing.T) {
	l, d := newImageLab(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	began := time.Now()
	warm := hypervisor.WarmRequest{Template: "9000", Cores: imageCores, MemoryBytes: imageMiB << 20}
	if _, err := d.WarmTemplate(ctx, warm, nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("template there in %s", time.Since(began))

	seen := map[string]string{}
	for i, name := range []string{"brave-otter", "calm-heron"} {
		req := l.imageRequest(i, name)
		if _, err := d.CreateVM(ctx, req, nil); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		vm, err := d.SetPower(ctx, req.Ref, hypervisor.PowerOn, 0)
		if err != nil || vm.Start.Way != hypervisor.WayMemory {
			t.Fatalf("vm = %+v, %v", vm, err)
		}
		t.Logf("%s started in %s", name, time.Since(began))
	}
	time.Sleep(pastStart)
	for i, name := range []string{"brave-otter", "calm-heron"} {
		l.checkPrivateMemory(d, testVMID+uint32(i))
		for what, got := range l.ask(ctx, d, testVMID+uint32(i)) {
			if seen[what+got] != "" {
				t.Errorf("%s and %s have the same %s: %q", name, seen[what+got], what, got)
			}
			seen[what+got] = name
		}
	}
	if seen["hostnamebrave-otter"] == "" || seen["hostnamecalm-heron"] == "" {
		t.Errorf("seen: %v", seen)
	}
	l.checkNoToken(d)
}

func (l *lab) imageRequest(i int, name string) hypervisor.CreateRequest {
	req := testRequest()
	req.Ref.VMID += uint32(i)
	req.Template, req.Cores, req.MemoryBytes = "9000", imageCores, imageMiB<<20
	req.NIC.MAC = fmt.Sprintf("52:54:00:00:10:%02x", i+1)
	if i > 0 {
		l.tap(req.Ref.VMID)
	}
	req.Seed = hypervisor.Seed{
		UserData: fmt.Appendf(nil, `#cloud-config
{"hostname": %q, "write_files": [{"path": "/etc/agentlab/bootstrap.json", "permissions": "0600", "content": "{\"token\":\"planted-token-%d\"}"}]}`, name, i),
		MetaData: fmt.Appendf(nil, `{"instance-id": "sbx_%d", "local-hostname": %q}`, i, name),
		NetworkConfig: fmt.Appendf(nil,
			`{"version": 2, "ethernets": {"agentlab0": {"match": {"macaddress": %q}, "dhcp4": false, "addresses": ["10.77.0.%d/16"]}}}`,
			req.NIC.MAC, i+10),
	}
	return req
}

// ask has the guest say who it is.
func (l *lab) ask(ctx context.Context, d *Driver, vmid uint32) map[string]string {
	l.t.Helper()
	conn, err := qmp.Connect(ctx, d.store.Dir(vmid), channelName)
	if err != nil {
		l.t.Fatal(err)
	}
	h := channel.New(conn)
	defer h.Close()
	out := map[string]string{}
	for what, command := range map[string]string{
		"hostname": "hostname", "machine-id": "cat /etc/machine-id", "host key": "cat /etc/ssh/ssh_host_ed25519_key.pub",
		"mac": "cat /sys/class/net/eth0/address", "address": "ip -4 -o address show eth0",
		"token": "cat /etc/agentlab/bootstrap.json", "random": "cat /proc/sys/kernel/random/uuid",
	} {
		var stdout, stderr bytes.Buffer
		code, err := h.Exec(ctx, channel.Exec{Argv: []string{"/bin/sh", "-c", command}}, nil, &stdout, &stderr)
		if code != 0 || err != nil || stdout.Len() == 0 {
			l.t.Fatalf("%s: %d, %v, %s", what, code, err, stderr.String())
		}
		out[what] = strings.TrimSpace(stdout.String())
	}
	return out
}

// checkPrivateMemory bounds what one more VM costs.
func (l *lab) checkPrivateMemory(d *Driver, vmid uint32) {
	l.t.Helper()
	v, err := d.store.Load(vmid)
	if err != nil {
		l.t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", v.Run.PID))
	if err != nil {
		l.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib int
		if _, err := fmt.Sscanf(line, "Private_Dirty: %d kB", &kib); err == nil {
			l.t.Logf("vm %d has %d MiB of its own", vmid, kib>>10)
			if kib > maxPrivate {
				l.t.Errorf("vm %d has %d KiB of its own", vmid, kib)
			}
			return
		}
	}
	l.t.Error("smaps_rollup does not tell")
}

// checkNoToken looks for what the clones were told in what they started from.
func (l *lab) checkNoToken(d *Driver) {
	l.t.Helper()
	for _, key := range l.keys(d) {
		for _, name := range []string{memory.RAMName, memory.StateName, memory.DiskName} {
			raw, err := os.ReadFile(d.memory.Path(key, name))
			if err != nil {
				l.t.Fatal(err)
			}
			if bytes.Contains(raw, []byte("planted-token")) {
				l.t.Errorf("%s holds a token", name)
			}
		}
	}
}
