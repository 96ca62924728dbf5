package bench_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/agentlab/agentlab/bench/internal/record"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/sdk/secret"
)

// nobody runs libvirt's session daemon: it needs nothing of the host's own libvirt.
const nobody = 65534

// domainXML is our machine as libvirt puts it, without a network: what counts is
// asked over the serial port.
const domainXML = `<domain type='qemu'>
  <name>bench</name>
  <memory unit='MiB'>%d</memory><vcpu>%d</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type>
    <kernel>%s</kernel><initrd>%s</initrd><cmdline>%s</cmdline></os>
  <features><acpi/><tcg><tb-cache unit='MiB'>256</tb-cache></tcg></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='%s'/><target dev='vda' bus='virtio'/><serial>root</serial></disk>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='%s'/><target dev='vdb' bus='virtio'/><serial>seed</serial><readonly/></disk>
    <controller type='usb' model='none'/><memballoon model='none'/>
    <console type='null'><target type='virtio' port='0'/></console>
    <channel type='unix'><source mode='bind' path='%s'/><target type='virtio' name='org.agentlab.runner.0'/></channel>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
</domain>
`

// BenchmarkLibvirt boots the guest image in Debian's libvirt, saves it with virsh
// save, and measures the time from virsh restore to the first command's output.
// The guest comes back as the one that it was: it gets no identity of its own.
func BenchmarkLibvirt(b *testing.B) {
	template := os.Getenv("AGENTLAB_TEMPLATE")
	for _, tool := range []string{"libvirtd", "virsh"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(b, "libvirt", "NOT COMPARED with libvirt: needs "+tool+"; run scripts/install_deps.sh bench")
		}
	}
	if template == "" || os.Geteuid() != 0 {
		skip(b, "libvirt", "NOT COMPARED with libvirt: needs root and AGENTLAB_TEMPLATE")
	}
	v := newLibvirt(b)
	domain, root := v.domain(b, template)
	began := time.Now()
	v.virsh(b, "create", domain)
	v.firstCommand(b)
	boot := time.Since(began)
	saved, frozen := filepath.Join(v.dir, "saved"), root+".frozen"
	began = time.Now()
	v.virsh(b, "save", "bench", saved)
	save := time.Since(began)
	v.run(b, "cp", "--sparse=always", root, frozen)
	var took samples
	for range count(b, "AGENTLAB_BENCH_STARTS", 20) {
		v.run(b, "cp", "--sparse=always", frozen, root)
		began := time.Now()
		v.virsh(b, "restore", saved)
		v.firstCommand(b)
		took = append(took, time.Since(began))
		v.virsh(b, "destroy", "bench")
	}
	st, err := os.Stat(saved)
	if err != nil {
		b.Fatal(err)
	}
	hide(b)
	took.report(b, "restore-exec")
	samples{save}.report(b, "save")
	samples{boot}.report(b, "boot-exec")
	keep(b, "libvirt", record.Set{
		Series: map[string][]float64{"restore_exec": took.seconds()},
		Values: map[string]float64{"save": save.Seconds(), "boot": boot.Seconds(), "saved_mib": float64(st.Size()) / (1 << 20)},
	})
}

// skip says loudly what is not measured.
func skip(b *testing.B, name, why string) {
	b.Helper()
	_, _ = fmt.Fprintln(os.Stderr, "\n*** "+why+" ***")
	keep(b, name, record.Set{Skipped: why})
	b.Skip(why)
}

// libvirt is a session daemon in a folder of its own.
type libvirt struct{ dir string }

func newLibvirt(b *testing.B) libvirt {
	b.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "agentlab-bench-") // short: sockets go there
	if err == nil {
		err = os.Chown(dir, nobody, nobody)
	}
	if err != nil {
		b.Fatal(err)
	}
	v := libvirt{dir}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	cmd := v.command(context.Background(), "libvirtd")
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = v.command(context.Background(), "virsh", "-q", "-c", "qemu:///session", "destroy", "bench").Run()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		r := testkit.Capture(v.command(b.Context(), "virsh", "-c", "qemu:///session", "version"))
		if r.Code == 0 {
			return v
		}
		if time.Now().After(deadline) {
			skip(b, "libvirt", "NOT COMPARED with libvirt: its daemon does not answer here: "+r.Stderr)
		}
	}
}

func (v libvirt) command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, name := range []string{"HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"} {
		cmd.Env = append(cmd.Env, name+"="+v.dir)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	return cmd
}

func (v libvirt) run(b *testing.B, argv ...string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), handTimeout)
	defer cancel()
	if r := testkit.Capture(v.command(ctx, argv...)); r.Code != 0 {
		b.Fatalf("%v: exit %d\n%s%s", argv, r.Code, r.Stdout, r.Stderr)
	}
}

func (v libvirt) virsh(b *testing.B, args ...string) {
	b.Helper()
	v.run(b, append([]string{"virsh", "-q", "-c", "qemu:///session"}, args...)...)
}

// domain writes its description and the disks for it.
func (v libvirt) domain(b *testing.B, template string) (path, root string) {
	b.Helper()
	var image struct{ Disk, Kernel, Initrd, Cmdline string }
	raw, err := os.ReadFile(filepath.Join(template, "manifest.json"))
	if err == nil {
		err = json.Unmarshal(raw, &image)
	}
	if err != nil {
		b.Fatal(err)
	}
	root, seedPath, path := filepath.Join(v.dir, "root.qcow2"), filepath.Join(v.dir, "seed.iso"), filepath.Join(v.dir, "domain.xml")
	v.run(b, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", filepath.Join(template, image.Disk), root)
	writeSeed(b, seedPath)
	text := fmt.Sprintf(domainXML, vmMemoryMB, vmCores, filepath.Join(template, image.Kernel), filepath.Join(template, image.Initrd),
		image.Cmdline, root, seedPath, v.socket())
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	return path, root
}

func (v libvirt) socket() string { return filepath.Join(v.dir, "channel") }

// firstCommand waits for the output of one.
func (v libvirt) firstCommand(b *testing.B) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), handTimeout)
	defer cancel()
	for {
		// A connection holds until the guest's program answers.
		err := sayOverChannel(ctx, v.socket())
		if err == nil {
			return
		}
		if ctx.Err() != nil || !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
			b.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func writeSeed(b *testing.B, path string) {
	b.Helper()
	docs, err := seed.Render(handSeed("", handMAC))
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	for name, body := range map[string][]byte{
		seed.UserDataName: docs.UserData, seed.MetaDataName: docs.MetaData, seed.NetworkConfigName: docs.NetworkConfig,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	r := testkit.Capture(exec.Command("xorriso", "-as", "mkisofs", "-quiet", "-V", seed.Label, "-J", "-r", "-o", path, dir))
	if r.Code == 0 {
		err = os.Chmod(path, 0o644)
	}
	if r.Code != 0 || err != nil {
		b.Fatalf("make seed: exit %d, %v\n%s", r.Code, err, r.Stderr)
	}
}

// handSeed is what a guest that no daemon knows is told. It finds nobody who takes
// its token, as ours finds somebody.
func handSeed(key, mac string) seed.Input {
	return seed.Input{
		Hostname: "by-hand", SandboxID: "sbx_byhandbyhandbyha", VMID: 1, User: "agent", AuthorizedKey: key, MAC: mac,
		AddressCIDR: netip.MustParsePrefix(handAddress + "/16"), Gateway: netip.MustParseAddr(guestAPI),
		Controller: "http://" + guestAPI + ":" + guestAPIPort, Token: secret.New(strconv.Itoa(os.Getpid())),
	}
}
