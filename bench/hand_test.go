package bench_test

import (
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/internal/testkit"
)

// guestAPI is where a guest of a dev daemon says hello. QEMU's own user network
// passes what is sent to its host's address on to this machine's loopback.
const (
	guestAPI     = "10.77.0.1"
	guestAPIPort = "8844"
	handNetwork  = "user,id=net0,net=10.77.0.0/16,host=" + guestAPI + ",dns=10.77.255.3,dhcpstart=10.77.255.9"
)

// qemuOf finds the QEMU of a sandbox.
func (l *labDaemon) qemuOf(b *testing.B, id string) int {
	b.Helper()
	sb, err := l.c.Sandbox(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	pid, err := l.pidOf(sb)
	if err != nil {
		b.Fatal(err)
	}
	return pid
}

var (
	overlayFile = regexp.MustCompile(`"filename":"([^"]*)",(?:"locking":"off",)?"node-name":"(base0|root|seed)-file"`)
	byDriver    = regexp.MustCompile(`^(tap|socket),id=([a-z0-9]+),.*$`)
)

// byHand boots the same machine again without us: its very arguments, a fresh
// overlay, a copy of its seed, and a listener instead of the guest API. It gives
// the time from QEMU's start to the guest's first call.
func byHand(b *testing.B, pid int) time.Duration {
	b.Helper()
	argv := handArgs(b, argvOf(b, pid))
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", guestAPIPort))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	ctx, cancel := context.WithTimeout(b.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	context.AfterFunc(ctx, func() { _ = ln.Close() })
	began := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	conn, err := ln.Accept()
	took := time.Since(began)
	cancel()
	_ = cmd.Wait()
	if err != nil {
		b.Fatalf("the guest started by hand never called: %v", err)
	}
	_ = conn.Close()
	return took
}

// handArgs makes the arguments of a running machine good for a second one.
func handArgs(b *testing.B, argv []string) []string {
	b.Helper()
	dir := b.TempDir()
	files := map[string]string{}
	for _, m := range overlayFile.FindAllStringSubmatch(strings.Join(argv, "\n"), -1) {
		files[m[2]] = m[1]
	}
	root, seed := filepath.Join(dir, "root.qcow2"), filepath.Join(dir, "seed.iso")
	for _, argv := range [][]string{
		{"qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", files["base0"], root},
		{"cp", files["seed"], seed},
	} {
		if r := testkit.Capture(exec.Command(argv[0], argv[1:]...)); r.Code != 0 {
			b.Fatalf("%v: %s", argv, r.Stderr)
		}
	}
	out := []string{argv[0]}
	for _, a := range argv[1:] {
		if a == "-S" {
			continue
		}
		a = strings.NewReplacer(files["root"], root, files["seed"], seed).Replace(a)
		if m := byDriver.FindStringSubmatch(a); m != nil && m[1] == "tap" {
			a = handNetwork
		} else if m != nil {
			a = "null,id=" + m[2]
		}
		out = append(out, a)
	}
	return out
}
