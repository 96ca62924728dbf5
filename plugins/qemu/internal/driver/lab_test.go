package driver

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	standIn   = "AGENTLAB_TEST_STANDIN"
	testVMID  = 1001
	testOwner = "agentlab:11111111-2222-3333-4444-555555555555/sbx_test"
	testMAC   = "52:54:00:00:10:01"
)

// TestMain also plays the part of a plugin that is killed in mid-call.
func TestMain(m *testing.M) {
	if plan := os.Getenv(standIn); plan != "" {
		playStandIn(plan)
		os.Exit(0)
	}
	os.Exit(testhost.Main(m))
}

type lab struct {
	t      *testing.T
	state  string
	config Config
	guest  *fakeGuest
}

func newLab(t *testing.T, guest []byte) *lab {
	t.Helper()
	testhost.Need(t)
	state, images := testhost.Folders(t)
	l := &lab{t: t, state: state, guest: newFakeGuest(), config: Config{
		TemplateDir: images, VMIDFirst: 1000, VMIDLast: 1999, Accel: "tcg", QEMUBinary: "qemu-system-x86_64",
		TBMiB: 32, UIDBase: 400_000 + uint32(os.Getpid()%1000)*2000,
	}}
	testhost.Template(t, images, guest)
	testhost.Tap(t, fmt.Sprintf(InterfacePattern, testVMID))
	t.Cleanup(l.killAll)
	return l
}

// killAll ends whatever this lab's VMs left running.
func (l *lab) killAll() {
	d := l.driver()
	vmids, err := d.store.List()
	if err != nil {
		l.t.Error(err)
	}
	for _, vmid := range vmids {
		if v, err := d.store.Load(vmid); err == nil {
			if err := d.kill(context.Background(), d.tenant(v)); err != nil {
				l.t.Error(err)
			}
		}
	}
	if err := d.endBuilder(context.Background()); err != nil {
		l.t.Error(err)
	}
}

// driver opens the state anew, as a restarted plugin does.
func (l *lab) driver() *Driver {
	l.t.Helper()
	d, err := New(l.config, l.state, hclog.NewNullLogger())
	if err != nil {
		l.t.Fatal(err)
	}
	d.greet = l.guest.greet
	l.t.Cleanup(func() { _ = d.Close(context.Background()) })
	return d
}

func testRef() hypervisor.Ref { return hypervisor.Ref{VMID: testVMID, Owner: testOwner} }

func testRequest() hypervisor.CreateRequest {
	return hypervisor.CreateRequest{
		Ref: testRef(), Name: "box", Template: "9000", Cores: 1, MemoryBytes: 64 << 20,
		NIC:  hypervisor.NIC{Bridge: "vmbr1", MAC: testMAC, AddressCIDR: "10.77.0.12/16"},
		Seed: hypervisor.Seed{UserData: []byte("#cloud-config\n{}"), MetaData: []byte(`{"instance-id":"a"}`)},
	}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (l *lab) create(d *Driver) hypervisor.VM {
	l.t.Helper()
	vm, err := d.CreateVM(testContext(l.t), testRequest(), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	return vm
}

func (l *lab) power(d *Driver, target hypervisor.Power, grace time.Duration) hypervisor.VM {
	l.t.Helper()
	vm, err := d.SetPower(testContext(l.t), testRef(), target, grace)
	if err != nil {
		l.t.Fatalf("set power %s: %v", target, err)
	}
	return vm
}

func (l *lab) waitPower(d *Driver, want hypervisor.Power) {
	l.t.Helper()
	ctx := testContext(l.t)
	for ctx.Err() == nil {
		vm, err := d.GetVM(ctx, testRef())
		if err != nil {
			l.t.Fatal(err)
		}
		if vm.Power == want {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	l.t.Fatalf("vm did not become %s", want)
}

// pids gives the programs that run as the VM's user, by /proc and not by what
// the driver has written down.
func (l *lab) pids() []string {
	l.t.Helper()
	found, err := procfs.Find(l.config.UIDBase + testVMID)
	if err != nil {
		l.t.Fatal(err)
	}
	var out []string
	for _, id := range found {
		out = append(out, strconv.Itoa(id.PID))
	}
	return out
}
