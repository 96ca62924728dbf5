package bench_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/agentlab/agentlab/bench/internal/record"
	"github.com/agentlab/agentlab/core/api"
)

// BenchmarkCloudImage boots an image as clouds have it, Debian with cloud-init,
// firmware and boot loader, on the same QEMU, and asks over SSH until somebody
// answers. It needs the image that images/build.sh makes for Proxmox.
func BenchmarkCloudImage(b *testing.B) {
	template := cloudTemplate()
	if template == "" {
		skip(b, "cloud", "NOT COMPARED with a cloud image: there is none; set AGENTLAB_CLOUD_TEMPLATE to the folder that images/build.sh --kind cloud prints")
	}
	l := newLabDaemonOf(b, template, "debian-12-cloud")
	inside := joinNet(b, l.Pin())
	var took samples
	for range count(b, "AGENTLAB_BENCH_CLOUD", 1) {
		began := time.Now()
		a, err := l.c.CreateSandbox(b.Context(), api.SandboxCreate{Profile: "small"})
		if err != nil {
			b.Fatal(err)
		}
		l.untilSSH(b, inside, a.Sandbox.ID)
		took = append(took, time.Since(began))
		l.destroy(b, started{Sandbox: *a.Sandbox})
	}
	hide(b)
	took.report(b, "cloud-ssh")
	keep(b, "cloud", record.Set{Series: map[string][]float64{"ssh": took.seconds()}})
}

// untilSSH does not wait for the guest's hello, which a stock image does not say.
func (l *labDaemon) untilSSH(b *testing.B, inside *ownNet, id string) {
	b.Helper()
	const pause = 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	for {
		s, err := l.c.Sandbox(ctx, id)
		if err == nil && s.Address != "" {
			var conn net.Conn
			if conn, err = inside.dial(ctx, net.JoinHostPort(s.Address, "22")); err == nil {
				err = sayOverSSH(ctx, conn, l.sshKey(), "")
			}
			if err == nil {
				return
			}
		}
		if ctx.Err() != nil {
			b.Fatalf("nobody answers over SSH: %v", err)
		}
		time.Sleep(pause)
	}
}

// cloudTemplate is the newest one here.
func cloudTemplate() string {
	if named := os.Getenv("AGENTLAB_CLOUD_TEMPLATE"); named != "" {
		return named
	}
	all, _ := filepath.Glob("/var/cache/agentlab/images/debian-12-cloud-*")
	var newest string
	var at time.Time
	for _, dir := range all {
		if st, err := os.Stat(filepath.Join(dir, "manifest.json")); err == nil && st.ModTime().After(at) {
			newest, at = dir, st.ModTime()
		}
	}
	return newest
}
