package driver

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/tap"
	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	standIn   = "AGENTLAB_TEST_STANDIN"
	testVMID  = 1001
	testOwner = "agentlab:11111111-2222-3333-4444-555555555555/sbx_test"
	testMAC   = "52:54:00:00:10:01"
)

// noAnswer is how long to wait for one that will not come.
const noAnswer = 200 * time.Millisecond

// Users of labs are where neither accounts nor other tests' are. A lab has more than
// its VMs need, those of its builder and of its volumes among them.
const (
	firstUID  = 10_000_000
	uidsOfLab = 150
	maxLabs   = 400
)

// TestMain also plays the part of a plugin that is killed in mid-call.
func TestMain(m *testing.M) {
	if plan := os.Getenv(standIn); plan != "" {
		playStandIn(plan)
		os.Exit(0)
	}
	code := testhost.Main(m)
	common.remove()
	os.Exit(code)
}

type lab struct {
	t      *testing.T
	number uint32
	state  string
	config Config
	guest  *fakeGuest
}

// newLab gives a lab with folders, users and a tap of its own, so that tests with one
// run beside each other.
func newLab(t *testing.T, guest []byte) *lab {
	t.Helper()
	testhost.Need(t)
	t.Parallel()
	state, images := testhost.Folders(t)
	number := common.labs.Add(1) % maxLabs
	l := &lab{t: t, number: number, state: state, guest: newFakeGuest(), config: Config{
		TemplateDir: images, VMIDFirst: 1000, VMIDLast: 1109, Accel: "tcg", QEMUBinary: "qemu-system-x86_64",
		TBMiB: 32, UIDBase: firstUID + (uint32(os.Getpid()%1000)*maxLabs+number)*uidsOfLab,
	}}
	testhost.Template(t, images, guest)
	l.tap(testVMID)
	t.Cleanup(l.killAll)
	return l
}

// tap makes the VM's.
func (l *lab) tap(vmid uint32) {
	l.t.Helper()
	testhost.Tap(l.t, tapOf(l.number, fmt.Sprintf(InterfacePattern, vmid)))
}

// tapOf is the lab's own in the place of one that VMs of that number have in every
// lab.
func tapOf(number uint32, name string) string {
	return fmt.Sprintf("l%d-%s", number, strings.TrimPrefix(name, "tap"))
}

func openTapOf(number uint32) func(string) (*os.File, error) {
	return func(name string) (*os.File, error) { return tap.Open(tapOf(number, name)) }
}

func replugOf(number uint32) func(*os.File, string) error {
	return func(f *os.File, name string) error { return tap.Replug(f, tapOf(number, name)) }
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
	if err := d.tidySpares(context.Background()); err != nil {
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
	d.openTap, d.replug, d.greet, d.versions = openTapOf(l.number), replugOf(l.number), l.guest.greet, &common.versions
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
