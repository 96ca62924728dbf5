package driver

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/plugins/qemu/internal/testhost"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const sigStop = syscall.SIGSTOP

func TestCreateIsIdempotent(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	first := l.create(d)
	// The token of a second try must be the one the guest will find.
	again := testRequest()
	again.Seed.UserData = []byte("#cloud-config\n{\"second\":true}")
	second, err := d.CreateVM(testContext(t), again, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
	seed, err := os.ReadFile(d.store.Path(testVMID, seedName))
	if err != nil || !bytes.Contains(seed, []byte("second")) {
		t.Errorf("seed does not hold the second request: %v", err)
	}
	l.power(d, hypervisor.PowerOn, 0)
	third := testRequest()
	third.Seed.UserData = []byte("third")
	vm, err := d.CreateVM(testContext(t), third, nil)
	if err != nil || vm.Power != hypervisor.PowerOn {
		t.Errorf("create of a running vm: %s, %v", vm.Power, err)
	}
	if seed, _ := os.ReadFile(d.store.Path(testVMID, seedName)); bytes.Contains(seed, []byte("third")) {
		t.Error("the seed of a vm that has run was replaced")
	}
}

func TestRepeatedCreateWritesNothing(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	seed, disk := stat(t, d, seedName), stat(t, d, diskName)
	l.create(d)
	if seed != stat(t, d, seedName) || disk != stat(t, d, diskName) {
		t.Error("a repeated create wrote the seed or the disk again")
	}
	req := testRequest()
	req.Seed.UserData = []byte("another token")
	if _, err := d.CreateVM(testContext(t), req, nil); err != nil || seed == stat(t, d, seedName) || disk != stat(t, d, diskName) {
		t.Errorf("a create with another seed left the seed or wrote the disk: %v", err)
	}
	req.Cores = 2
	if vm, err := d.CreateVM(testContext(t), req, nil); err != nil || vm.Cores != 2 {
		t.Errorf("create of another vm: %+v, %v", vm, err)
	}
	// Somebody may have lost the disk.
	if err := os.Remove(d.store.Path(testVMID, diskName)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.CreateVM(testContext(t), req, nil); err != nil || stat(t, d, diskName) == disk {
		t.Errorf("create of a vm without disk: %v", err)
	}
}

// stat tells a file from one that was written anew.
func stat(t *testing.T, d *Driver, name string) [3]int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(d.store.Path(testVMID, name), &st); err != nil {
		t.Fatal(err)
	}
	return [3]int64{int64(st.Ino), st.Mtim.Sec, st.Mtim.Nsec}
}

func TestCreateAtTheSameTimeMakesOne(t *testing.T) {
	l := newLab(t, testhost.Idle)
	drivers := []*Driver{l.driver(), l.driver()}
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() { _, errs[i] = drivers[i%2].CreateVM(testContext(t), testRequest(), nil) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if vms, err := drivers[0].ListVMs(testContext(t), "agentlab:", true); err != nil || len(vms) != 1 {
		t.Errorf("vms = %v, %v", vms, err)
	}
}

func TestForeignVMIsUntouched(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	l.power(d, hypervisor.PowerOn, 0)
	pids, ctx := strings.Join(l.pids(), " "), testContext(t)
	record, err := os.ReadFile(d.store.Path(testVMID, "vm.json"))
	if err != nil {
		t.Fatal(err)
	}
	other := testRequest()
	other.Ref.Owner = "agentlab:other/sbx_9"
	if _, err := d.CreateVM(ctx, other, nil); !errors.Is(err, fault.Exists) {
		t.Errorf("create over a foreign vm: %v, want exists", err)
	}
	for _, owner := range []string{other.Ref.Owner, ""} {
		ref := hypervisor.Ref{VMID: testVMID, Owner: owner}
		if err := d.DestroyVM(ctx, ref); !errors.Is(err, fault.Precondition) {
			t.Errorf("destroy as %q: %v, want precondition", owner, err)
		}
		if _, err := d.SetPower(ctx, ref, hypervisor.PowerOff, 0); !errors.Is(err, fault.Precondition) {
			t.Errorf("power off as %q: %v, want precondition", owner, err)
		}
	}
	after, err := os.ReadFile(d.store.Path(testVMID, "vm.json"))
	if err != nil || !bytes.Equal(record, after) || strings.Join(l.pids(), " ") != pids {
		t.Errorf("the vm was touched: %v, programs %v", err, l.pids())
	}
	if vms, err := d.ListVMs(ctx, "agentlab:other", false); err != nil || len(vms) != 0 {
		t.Errorf("list of another owner: %v, %v", vms, err)
	}
}

// A folder without a readable mark may be anybody's.
func TestUnreadableRecordIsUntouched(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	for _, body := range []string{"{", `{"format":1,"vmid":1001}`, `{"format":3,"vmid":1001,"owner":"x"}`} {
		if err := os.WriteFile(d.store.Path(testVMID, "vm.json"), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := d.DestroyVM(testContext(t), testRef()); !errors.Is(err, fault.Precondition) {
			t.Errorf("destroy: %v, want precondition", err)
		}
		if _, err := d.CreateVM(testContext(t), testRequest(), nil); !errors.Is(err, fault.Exists) {
			t.Errorf("create: %v, want exists", err)
		}
		if _, err := os.Stat(d.store.Path(testVMID, diskName)); err != nil {
			t.Errorf("disk: %v", err)
		}
		vm, err := d.GetVM(testContext(t), testRef())
		if err != nil || vm.Ref.Owner != "" {
			t.Errorf("get = %+v, %v, want no owner", vm, err)
		}
	}
}

func TestSurvivorsAreFoundAgain(t *testing.T) {
	l := newLab(t, testhost.Idle)
	l.create(l.driver())
	l.killedIn("start", "recorded") // its plugin dies, the guest's program does not
	l.power(l.driver(), hypervisor.PowerOn, 0)
	d := l.driver()
	vms, err := d.ListVMs(testContext(t), "agentlab:11111111-", false)
	if err != nil || len(vms) != 1 || vms[0].Power != hypervisor.PowerOn || vms[0].Started.IsZero() {
		t.Fatalf("vms = %+v, %v", vms, err)
	}
	l.destroyAndCheck(d)
}

func TestCreateRefusals(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	tests := map[string]struct {
		change func(*hypervisor.CreateRequest)
		want   fault.Class
		hint   string
	}{
		"no template":  {func(r *hypervisor.CreateRequest) { r.Template = "nope" }, fault.NotFound, "9000 (tiny)"},
		"out of range": {func(r *hypervisor.CreateRequest) { r.Ref.VMID = 5 }, fault.Invalid, ""},
		"no owner":     {func(r *hypervisor.CreateRequest) { r.Ref.Owner = "" }, fault.Invalid, ""},
		"bad MAC":      {func(r *hypervisor.CreateRequest) { r.NIC.MAC = "52:54:00:00:00:01,script=x" }, fault.Invalid, ""},
		"group MAC":    {func(r *hypervisor.CreateRequest) { r.NIC.MAC = "01:00:5e:00:00:01" }, fault.Invalid, ""},
		"bad tap":      {func(r *hypervisor.CreateRequest) { r.NIC.Tap = "../x" }, fault.Invalid, ""},
		"no memory":    {func(r *hypervisor.CreateRequest) { r.MemoryBytes = 1 }, fault.Invalid, ""},
		"no cores":     {func(r *hypervisor.CreateRequest) { r.Cores = 0 }, fault.Invalid, ""},
		"large seed":   {func(r *hypervisor.CreateRequest) { r.Seed.UserData = make([]byte, 2<<20) }, fault.Invalid, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			req := testRequest()
			tt.change(&req)
			_, err := d.CreateVM(testContext(t), req, nil)
			if !errors.Is(err, tt.want) || !strings.Contains(fault.HintOf(err), tt.hint) {
				t.Errorf("err = %v (%s), want %s", err, fault.HintOf(err), tt.want)
			}
			if left, _ := os.ReadDir(d.store.Root()); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestStartWithoutTap(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	req := testRequest()
	req.NIC.Tap = "tapmissing"
	if _, err := d.CreateVM(testContext(t), req, nil); err != nil {
		t.Fatal(err)
	}
	_, err := d.SetPower(testContext(t), testRef(), hypervisor.PowerOn, 0)
	if !errors.Is(err, fault.Precondition) || !strings.Contains(fault.HintOf(err), "attach") {
		t.Errorf("err = %v (%s), want precondition", err, fault.HintOf(err))
	}
	if pids := l.pids(); len(pids) > 0 {
		t.Errorf("programs left: %v", pids)
	}
}

func TestFailedQEMUExplainsItself(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	if err := os.WriteFile(d.store.Path(testVMID, diskName), []byte("not a disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := d.SetPower(testContext(t), testRef(), hypervisor.PowerOn, 0)
	if err == nil || !strings.Contains(err.Error(), "qcow2") {
		t.Errorf("err = %v, want QEMU's own words", err)
	}
	l.waitPower(d, hypervisor.PowerOff)
}

func TestFullDiskLeavesNothing(t *testing.T) {
	l := newLab(t, testhost.Idle)
	if err := syscall.Mount("tmpfs", l.state, "tmpfs", 0, "size=256k,mode=755"); err != nil {
		t.Skip("needs mounts: " + err.Error())
	}
	t.Cleanup(func() { _ = syscall.Unmount(l.state, syscall.MNT_DETACH) })
	d := l.driver()
	filler := filepath.Join(l.state, "filler")
	for kib := 0; kib < 240; kib += 24 {
		if err := os.WriteFile(filler, make([]byte, kib<<10), 0o600); err != nil {
			break // not even the filler fits
		}
		_, err := d.CreateVM(context.Background(), testRequest(), nil)
		if err == nil {
			if err := d.DestroyVM(context.Background(), testRef()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if !errors.Is(err, fault.Exhausted) {
			t.Errorf("with %d KiB gone: %v, want exhausted", kib, err)
		}
		if left, _ := os.ReadDir(d.store.Root()); len(left) > 0 {
			t.Errorf("with %d KiB gone: left behind %v", kib, left)
		}
	}
	if _, err := d.CreateVM(context.Background(), testRequest(), nil); !errors.Is(err, fault.Exhausted) {
		t.Errorf("full disk: %v, want exhausted", err)
	}
}

// An overlay whose own header names another file must not make QEMU open it.
func TestOverlayHeaderIsNotFollowed(t *testing.T) {
	l := newLab(t, testhost.Idle)
	d := l.driver()
	l.create(d)
	disk := d.store.Path(testVMID, diskName)
	secret := filepath.Join(filepath.Dir(l.state), "secret")
	if err := os.WriteFile(secret, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", secret, disk).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.power(d, hypervisor.PowerOn, 0)
	held, _ := exec.Command("sh", "-c", "ls -l /proc/"+l.pids()[0]+"/fd").CombinedOutput()
	if bytes.Contains(held, []byte(secret)) || !bytes.Contains(held, []byte("root.qcow2")) {
		t.Errorf("qemu holds:\n%s", held)
	}
}
