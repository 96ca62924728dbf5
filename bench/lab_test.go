package bench_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/sdk/channel"
)

// The size of every sandbox that is measured here.
const (
	vmCores    = 2
	vmMemoryMB = 512
)

const smallProfile = `profile "small" {
  template = %q
  resources {
    cores     = %d
    memory_mb = %d
  }
  network { mode = "nat" }
  behavior { ttl_minutes_default = 120 }
}
`

// labDaemon is a real daemon with real plugins, and a client of it.
type labDaemon struct {
	*testkit.Daemon
	c *client.Client
}

func newLabDaemon(b *testing.B) *labDaemon {
	b.Helper()
	template := os.Getenv("AGENTLAB_TEMPLATE")
	if template == "" {
		b.Skip("needs a guest image; set AGENTLAB_TEMPLATE to what scripts/image.sh prints")
	}
	return newLabDaemonOf(b, template, "debian-12")
}

// newLabDaemonOf has one image, in a folder.
func newLabDaemonOf(b *testing.B, folder, name string) *labDaemon {
	b.Helper()
	l := &labDaemon{Daemon: testkit.NewDaemon(b, folder)}
	l.Start(b)
	l.WriteProfile(b, "small", fmt.Sprintf(smallProfile, name, vmCores, vmMemoryMB))
	c, err := client.New(client.Options{Socket: l.Socket()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	l.c = c
	return l
}

// warm makes the memory template and says how long that took.
func (l *labDaemon) warm(b *testing.B) time.Duration {
	b.Helper()
	began := time.Now()
	l.MustRun(b, "template", "warm", "debian-12", "--profile", "small")
	return time.Since(began)
}

// withoutMemory has every later start be a boot.
func (l *labDaemon) withoutMemory(b *testing.B) { l.SetQEMU(b, `memory_templates = "off"`) }

// started is a sandbox whose first command has said something. Times count from
// the request, at the client.
type started struct {
	api.Sandbox
	pid    int
	way    string // boot or memory
	vm     time.Duration
	ready  time.Duration
	output time.Duration
	cpu    time.Duration            // of QEMU until the output
	steps  map[string]time.Duration // of the operation, by the daemon's clock
}

// create makes a sandbox and runs a command in it as soon as it is READY.
func (l *labDaemon) create(ctx context.Context, first command) (s started, err error) {
	began := time.Now()
	a, err := l.c.CreateSandbox(ctx, api.SandboxCreate{Profile: "small"})
	if err != nil {
		return s, err
	}
	if err := l.follow(ctx, a.Sandbox.ID, began, &s); err != nil {
		return s, err
	}
	if s.Sandbox, err = l.c.Sandbox(ctx, a.Sandbox.ID); err != nil {
		return s, err
	}
	if err := first(ctx, l, s.Sandbox); err != nil {
		return s, fmt.Errorf("first command in %s: %w", s.Name, err)
	}
	s.output = time.Since(began)
	if s.pid, err = l.pidOf(s.Sandbox); err != nil {
		return s, err
	}
	s.cpu, err = cpuOf(s.pid)
	return s, err
}

// follow waits for READY.
func (l *labDaemon) follow(ctx context.Context, id string, began time.Time, s *started) error {
	var oldest int64
	s.steps = map[string]time.Duration{}
	for e, err := range l.c.Events(ctx, client.EventQuery{After: &oldest, SandboxID: id}) {
		switch {
		case err != nil:
			return err
		case e.Type == lab.EventStepFinished:
			ms, _ := strconv.Atoi(e.Fields["took_ms"])
			s.steps[e.Fields["step"]] = time.Duration(ms) * time.Millisecond
		case e.Type == lab.EventVMStarted:
			s.way, s.vm = e.Fields["way"], time.Since(began)
		case e.Type == lab.EventSandboxChanged && e.Fields["to"] == string(lab.SandboxReady):
			s.ready = time.Since(began)
			return nil
		case e.Type == lab.EventSandboxChanged && e.Fields["to"] == string(lab.SandboxFailed):
			return fmt.Errorf("the sandbox failed: %s", e.Fields["reason"])
		}
	}
	return errors.New("the events ended")
}

// destroy ends sandboxes and waits until nothing of them runs.
func (l *labDaemon) destroy(b *testing.B, all ...started) {
	b.Helper()
	for _, s := range all {
		if _, err := l.c.DestroySandbox(b.Context(), s.ID); err != nil {
			b.Fatal(err)
		}
	}
	for _, s := range all {
		testkit.Eventually(b, 2*time.Minute, s.Name+" is gone", func() bool {
			sb, err := l.c.Sandbox(b.Context(), s.ID)
			return err == nil && sb.State == string(lab.SandboxDestroyed)
		})
	}
}

// command runs one in a sandbox and returns when it has said something.
type command func(ctx context.Context, l *labDaemon, s api.Sandbox) error

const hello = "agentlab-says-hello"

// overChannel is what the hypervisor's guest exec does.
func overChannel(ctx context.Context, l *labDaemon, s api.Sandbox) error {
	vms, err := l.folderOfVMs()
	if err != nil {
		return err
	}
	return sayOverChannel(ctx, filepath.Join(vms, strconv.FormatUint(uint64(s.VMID), 10), "channel.sock"))
}

// overSSH is what agentlab ssh does, without the start of its two processes.
func overSSH(ctx context.Context, l *labDaemon, s api.Sandbox) error {
	conn, err := l.c.DialSandbox(ctx, s.ID, 22)
	if err != nil {
		return err
	}
	return sayOverSSH(ctx, conn, l.sshKey(), s.HostKey)
}

func (l *labDaemon) sshKey() string { return filepath.Join(l.Dir, "keys", "id_ed25519") }

// folderOfVMs is where the hypervisor plugin keeps a folder for each VM.
func (l *labDaemon) folderOfVMs() (string, error) {
	found, err := filepath.Glob(filepath.Join(l.Dir, "data", "*", "hypervisor-qemu", "vms"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("look for the folder of VMs: %v, %w", found, err)
	}
	return found[0], nil
}

func sayOverChannel(ctx context.Context, socket string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	h := channel.New(conn)
	defer h.Close()
	return say(ctx, h)
}

func say(ctx context.Context, h *channel.Host) error {
	var out bytes.Buffer
	code, err := h.Exec(ctx, channel.Exec{Argv: []string{"/bin/echo", hello}}, nil, &out, nil)
	if err == nil && (code != 0 || !strings.Contains(out.String(), hello)) {
		err = fmt.Errorf("exit %d, %q", code, out.String())
	}
	return err
}

// sayOverSSH runs the command as the user agent; "" takes any host key.
func sayOverSSH(ctx context.Context, conn net.Conn, keyFile, hostKey string) error {
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	raw, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	key, err := ssh.ParsePrivateKey(raw)
	if err != nil {
		return err
	}
	known := ssh.InsecureIgnoreHostKey()
	if hostKey != "" {
		public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(hostKey))
		if err != nil {
			return err
		}
		known = ssh.FixedHostKey(public)
	}
	sc, chans, reqs, err := ssh.NewClientConn(conn, "guest", &ssh.ClientConfig{
		User: "agent", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: known,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if err != nil {
		return err
	}
	c := ssh.NewClient(sc, chans, reqs)
	defer func() { _ = c.Close() }()
	s, err := c.NewSession()
	if err != nil {
		return err
	}
	out, err := s.Output("echo " + hello)
	if err == nil && !strings.Contains(string(out), hello) {
		err = fmt.Errorf("the guest said %q", out)
	}
	return err
}
