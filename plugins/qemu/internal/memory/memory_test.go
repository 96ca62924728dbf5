package memory

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/sdk/fault"
)

const attacker = "AGENTLAB_TEST_ATTACKER"

// TestMain also plays a QEMU that its guest took over.
func TestMain(m *testing.M) {
	if os.Getenv(attacker) != "" {
		attack()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// ram makes a file as a template's, with holes in it.
func ram(t *testing.T) (path string, want []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), RAMName)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want = make([]byte, 8<<20)
	copy(want[3*pageSize:], bytes.Repeat([]byte("a"), 5*pageSize))
	copy(want[5<<20-100:], bytes.Repeat([]byte("b"), 2000))
	want[len(want)-1] = 'z'
	err = f.Truncate(int64(len(want)))
	for _, at := range []int{3 * pageSize, 5<<20 - 100, len(want) - pageSize} {
		_, werr := f.WriteAt(want[at:at+pageSize], int64(at))
		err = errors.Join(err, werr)
	}
	_, werr := f.WriteAt(want[3*pageSize:9*pageSize], 3*pageSize)
	if err := errors.Join(err, werr); err != nil {
		t.Fatal(err)
	}
	return path, want
}

func TestSealCopiesMemory(t *testing.T) {
	path, want := ram(t)
	f, err := Seal(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(want)+1)
	n, err := f.ReadAt(got, 0)
	if n != len(want) || !bytes.Equal(got[:n], want) {
		t.Errorf("%d bytes differ from the %d of the file, %v", n, len(want), err)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > 16*pageSize {
		t.Errorf("takes %d bytes, %v", st.Blocks*512, err)
	}
}

// attack tries all ways to change the file that it was handed.
func attack() {
	f, err := os.OpenFile("/proc/self/fd/3", os.O_RDWR, 0)
	if err != nil {
		println("open: " + err.Error())
		return
	}
	fd := int(f.Fd())
	try := func(name string, err error) {
		if err == nil {
			println("CHANGED by " + name)
		}
	}
	_, err = f.WriteAt([]byte("x"), 0)
	try("write", err)
	try("truncate", f.Truncate(0))
	try("grow", f.Truncate(64<<20))
	try("punch", unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20))
	_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, 0)
	try("seals", err)
	_, err = unix.Mmap(fd, 0, pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	try("shared mapping", err)
	if b, err := unix.Mmap(fd, 0, pageSize, unix.PROT_READ, unix.MAP_SHARED); err == nil {
		try("mprotect", unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE))
	}
	private, err := unix.Mmap(fd, 0, 4*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		println("private mapping: " + err.Error())
		return
	}
	private[3*pageSize] = 'X'
	println("done")
}

// A QEMU gets the memory that others start from, as another user, and may open it
// for writing. It can write to its own pages only.
func TestNobodyWritesSealedMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	path, want := ram(t)
	var vault Vault
	defer vault.Close()
	s := &Store{root: filepath.Dir(filepath.Dir(path))}
	f, err := vault.Take(t.Context(), s, filepath.Base(filepath.Dir(path)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, uid := range []uint32{1_899_999_999, 0} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{attacker + "=1"}
		cmd.ExtraFiles = []*os.File{f}
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "done" {
			t.Errorf("as %d: %s, %v", uid, out, err)
		}
	}
	got := make([]byte, len(want))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the memory has changed, %v", err)
	}
}

func testFit() Fit {
	return Fit{
		Name: "debian", Version: "1", Disk: File{"/img/disk", 5, 6}, Kernel: File{"/img/kernel", 7, 8},
		Cores: 2, MemoryMiB: 1, DiskBytes: 1 << 30, QEMU: File{"/usr/bin/qemu", 9, 10},
		Accel: machine.Accel{Name: "tcg", CPU: "qemu64"}, Args: []string{"-a", "b"},
	}
}

// All that a template depends on makes another key, and is told.
func TestKeyFollowsEveryPart(t *testing.T) {
	tests := map[string]func(f *Fit){
		"QEMU":                func(f *Fit) { f.QEMU.Modified++ },
		"QEMU has":            func(f *Fit) { f.QEMU.Path += "x" },
		"image":               func(f *Fit) { f.Version = "2" },
		"the image":           func(f *Fit) { f.Disk.Bytes++ },
		"image has":           func(f *Fit) { f.Kernel.Modified++ },
		"the image has":       func(f *Fit) { f.Initrd.Path = "/img/initrd" },
		"another size":        func(f *Fit) { f.Cores++ },
		"size":                func(f *Fit) { f.MemoryMiB++ },
		"of another size":     func(f *Fit) { f.DiskBytes++ },
		"executed in another": func(f *Fit) { f.Accel.CPU = "host" },
		"processor or kernel": func(f *Fit) { f.Host = "6.1" },
		"VMs are set up":      func(f *Fit) { f.Maker++ },
		"set up":              func(f *Fit) { f.Args = []string{"-a", "c"} },
	}
	before := testFit()
	keys := map[string]bool{before.Key(): true}
	for want, change := range tests {
		now := testFit()
		change(&now)
		if keys[now.Key()] {
			t.Errorf("%s: the key is the same", want)
		}
		keys[now.Key()] = true
		if why := before.Differs(now); !strings.Contains(why, want) {
			t.Errorf("%q does not say %q", why, want)
		}
	}
	if before.Differs(testFit()) != "" || before.Key() != testFit().Key() {
		t.Error("the same fit differs")
	}
}

// draft is a whole one.
func draft(t *testing.T, s *Store) *Draft {
	t.Helper()
	d, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	f, err := d.RAM(1<<20, uint32(os.Getuid()))
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	for _, name := range []string{StateName, DiskName, "qmp.sock", "seed.iso"} {
		if err := os.WriteFile(d.Path(name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestCommitIsWholeOrNothing(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	fit := testFit()
	for _, name := range []string{RAMName, StateName, DiskName} {
		d := draft(t, s)
		if err := os.Remove(d.Path(name)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Commit(fit); err == nil {
			t.Errorf("a template without %s was taken", name)
		}
	}
	if _, err := s.Find(fit.Key()); !errors.Is(err, fault.NotFound) {
		t.Errorf("find: %v", err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if items, err := os.ReadDir(s.root); err != nil || len(items) > 0 {
		t.Errorf("left: %v, %v", items, err)
	}
	made, err := draft(t, s).Commit(fit)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Find(fit.Key())
	if err != nil || got.Key != made.Key || !got.Created.Equal(made.Created) || time.Since(got.Used) > time.Minute {
		t.Errorf("found %+v, %v; made %+v", got, err, made)
	}
	items, err := os.ReadDir(filepath.Join(s.root, made.Key))
	if err != nil || len(items) != 4 {
		t.Errorf("files: %v, %v", items, err)
	}
	// What is there may have VMs that depend on it.
	if _, err := draft(t, s).Commit(fit); !errors.Is(err, fault.Precondition) {
		t.Errorf("commit over another: %v", err)
	}
	if err := s.Remove(made.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(fit.Key()); !errors.Is(err, fault.NotFound) {
		t.Errorf("find after remove: %v", err)
	}
}

// A template that lost a file is none.
func TestFindWantsEveryFile(t *testing.T) {
	for _, name := range []string{RAMName, StateName, DiskName} {
		s, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		made, err := draft(t, s).Commit(testFit())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Find(made.Key); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(s.Path(made.Key, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Find(made.Key); !errors.Is(err, fault.NotFound) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// A store has a template that another made, and loses it with nobody else.
func TestShare(t *testing.T) {
	dir := t.TempDir()
	one, err := Open(filepath.Join(dir, "one"))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := OpenCache(filepath.Join(dir, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := Open(filepath.Join(dir, "two"))
	if err != nil {
		t.Fatal(err)
	}
	made, err := draft(t, one).Commit(testFit())
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Share(t.Context(), two, "other"); !errors.Is(err, fault.NotFound) {
		t.Errorf("share of what is not there: %v", err)
	}
	for range 2 {
		if err := errors.Join(one.Share(t.Context(), cache, made.Key), cache.Link(two, made.Key)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(one.Remove(made.Key), cache.Remove(made.Key)); err != nil {
		t.Fatal(err)
	}
	got, err := two.Find(made.Key)
	if err != nil || !got.Created.Equal(made.Created) {
		t.Errorf("found %+v, %v", got, err)
	}
	for name, want := range map[string]os.FileMode{RAMName: 0o400, DiskName: 0o444} {
		if st, err := os.Stat(two.Path(made.Key, name)); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
}

func TestPrune(t *testing.T) {
	s, err := OpenCache(filepath.Join(t.TempDir(), "cache"))
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "disk")
	commit := func(cores uint32) string {
		t.Helper()
		fit := testFit()
		fit.Kernel, fit.QEMU, fit.Cores = File{}, File{}, cores
		if fit.Disk, err = Look(image); err != nil {
			t.Fatal(err)
		}
		made, err := draft(t, s).Commit(fit)
		if err != nil {
			t.Fatal(err)
		}
		return made.Key
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fresh, unused := commit(1), commit(2)
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(s.Path(unused, manifestName), old, old); err != nil {
		t.Fatal(err)
	}
	if err := s.Prune(time.Hour); err != nil {
		t.Fatal(err)
	}
	if keys, err := s.List(); err != nil || len(keys) != 1 || keys[0] != fresh {
		t.Errorf("keys = %v, %v", keys, err)
	}
	if err := os.WriteFile(image, []byte("rebuilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Prune(time.Hour); err != nil {
		t.Fatal(err)
	}
	if keys, err := s.List(); err != nil || len(keys) != 0 {
		t.Errorf("keys = %v, %v", keys, err)
	}
}

func TestCacheThatOthersMayWriteTo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o775)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCache(dir); !errors.Is(err, fault.Precondition) || fault.HintOf(err) == "" {
		t.Errorf("err = %v", err)
	}
}

// What is beside the cache, as images are, can be reached by those who reached it.
func TestFolderAboveTheCacheIsForAll(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	above := filepath.Join(t.TempDir(), "cache", "agentlab")
	if _, err := OpenCache(filepath.Join(above, "memory")); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]os.FileMode{filepath.Dir(above): 0o755, above: 0o755, filepath.Join(above, "memory"): 0o700} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", dir, st.Mode(), err, want)
		}
	}
	// What was there is its owner's to say.
	if err := os.Chmod(above, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCache(filepath.Join(above, "other")); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(above); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("%s: %v, %v", above, st.Mode(), err)
	}
}

// From one file system to another only a copy leads, which ends with its caller.
func TestShareBetweenFileSystems(t *testing.T) {
	away, err := os.MkdirTemp("/dev/shm", "agentlab-memory-")
	if err != nil {
		t.Skip("needs another file system:", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(away) })
	cache, err := OpenCache(filepath.Join(away, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	made, err := draft(t, cache).Commit(testFit())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(cache.Path(made.Key, StateName), filepath.Join(s.root, ".link")); !errors.Is(err, syscall.EXDEV) {
		t.Skip("needs another file system:", err)
	}
	// Its memory has something to be copied.
	if err := errors.Join(os.Chmod(cache.Path(made.Key, RAMName), 0o600), os.WriteFile(cache.Path(made.Key, RAMName), bytes.Repeat([]byte("a"), 1<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for what, err := range map[string]error{"link": cache.Link(s, made.Key), "copy for nobody": cache.Share(gone, s, made.Key)} {
		if err == nil || what == "link" && !errors.Is(err, fault.Unsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if items, err := os.ReadDir(s.root); err != nil || len(items) != 0 {
		t.Errorf("left: %v, %v", items, err)
	}
	if err := cache.Share(t.Context(), s, made.Key); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Find(made.Key); err != nil || got.Key != made.Key {
		t.Errorf("found %+v, %v", got, err)
	}
}

func TestSealEndsWithItsCaller(t *testing.T) {
	path, _ := ram(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Seal(ctx, path); !errors.Is(err, context.Canceled) || !errors.Is(err, fault.Timeout) {
		t.Errorf("err = %v", err)
	}
}
