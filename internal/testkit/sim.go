package testkit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/plugins/sim/world"
)

// Sim is an installed agentlabd, as far as one can be on loopback: the real
// daemon with its configuration file, and agentlab-plugin-sim for every kind,
// over a simulated world of its own.
type Sim struct {
	Dir    string // all of it is below
	World  *world.World
	Client *client.Client
	Subnet netip.Prefix   // of the sandboxes
	Guests netip.AddrPort // the guest API
	Plugin string         // path of the plugin's binary
	Env    []string       // of the daemon, beyond this process's
	Around []string       // a command line that ends in exec "$@", to start the daemon through
	Panics bool           // a plugin is to panic: the log tells of it

	bin string

	mu sync.Mutex
	// mu guards:
	proc *process
}

// process is one run of the daemon.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// How the simulated guests are reached: each Sim has a subnet of its own.
var (
	simSubnet = netip.MustParsePrefix("127.77.0.0/16")
	simCount  atomic.Uint32
)

// SimBundle is what every simulated job gets as its secrets.
const SimBundle = "version: 1\nenv:\n  PLANTED: planted-s1mW7rQ4\n"

const simProfiles = `
profile "sim" {
  template       = "debian-12"
  secrets_bundle = "planted"
}

profile "plain" {
  template = "debian-12"
}

profile "stop" {
  template       = "debian-12"
  secrets_bundle = "planted"

  behavior {
    on_job_end = "stop"
  }
}
`

// NewSim writes a daemon's configuration; Start runs it. When the test ends,
// the daemon is stopped, and it is an error if a process of it stays or its log
// tells of a panic or a data race.
func NewSim(t testing.TB) *Sim {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, as the daemon does")
	}
	dir, err := os.MkdirTemp("/tmp", "alsim") // short: sockets are below
	if err != nil {
		t.Fatal(err)
	}
	OnEnd(t, func() { _ = os.RemoveAll(dir) }) // last, and whatever fails before
	base := simSubnet.Addr().As4()
	base[2] = byte(simCount.Add(1))
	s := &Sim{Dir: dir, bin: filepath.Dir(Bin(t, "agentlabd")), Plugin: Bin(t, "agentlab-plugin-sim")}
	s.Subnet = netip.PrefixFrom(netip.AddrFrom4(base), 24)
	s.Guests = freePort(t, s.Subnet.Addr().Next())
	placeWorld(t, s.path("world"))
	if s.World, err = world.Open(s.path("world"), nil); err != nil {
		t.Fatal(err)
	}
	s.Client, err = client.New(client.Options{Socket: s.Socket(), Timeout: 20 * time.Second, Patience: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.path("profiles"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.write(t, "profiles/sim.hcl", simProfiles)
	s.write(t, "world/"+world.Bundles+"/planted.yaml", SimBundle)
	s.write(t, "config.hcl", s.Config(s.Plugins()))
	OnEnd(t, func() { s.cleanUp(t) })
	return s
}

// placeWorld makes the directory of a simulated world. It is to survive kills and
// no more, and so it is in memory: what a simulated machine does must not share the
// disk with what the daemon does.
func placeWorld(t testing.TB, path string) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "alsim")
	if err == nil {
		OnEnd(t, func() { _ = os.RemoveAll(dir) })
		err = os.Symlink(dir, path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func freePort(t testing.TB, addr netip.Addr) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func (s *Sim) path(name string) string { return filepath.Join(s.Dir, name) }

func (s *Sim) write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Socket is the control API's socket.
func (s *Sim) Socket() string { return s.path("run/agentlabd.sock") }

// ConfigFile is the daemon's configuration file.
func (s *Sim) ConfigFile() string { return s.path("config.hcl") }

// WriteConfig replaces the configuration for the next start.
func (s *Sim) WriteConfig(t testing.TB, text string) { s.write(t, "config.hcl", text) }

// Config is a configuration with the given plugin blocks at its end.
func (s *Sim) Config(plugins string) string {
	var b strings.Builder
	for _, kv := range [][2]string{
		{"data_dir", s.path("data")},
		{"run_dir", s.path("run")},
		{"log_file", ""},
		{"profiles_dir", s.path("profiles")},
		{"agent_subnet", s.Subnet.String()},
		{"guest_listen", s.Guests.String()},
	} {
		fmt.Fprintf(&b, "%s = %q\n", kv[0], kv[1])
	}
	return b.String() + plugins
}

// Plugins are the plugin blocks of a simulated host.
func (s *Sim) Plugins() string {
	return s.Block("hypervisor", s.Plugin, "") + s.Block("network", s.Plugin, "") + s.Block("secrets", s.Plugin, "")
}

// Block is one plugin block; extra are lines for its config.
func (s *Sim) Block(kind, path, extra string) string {
	return fmt.Sprintf("\nplugin %q \"sim\" {\n  path = %q\n\n  config {\n    world     = %q\n    heartbeat = \"100ms\"\n%s  }\n}\n",
		kind, path, s.path("world"), extra)
}

// Begin starts the daemon and does not wait.
func (s *Sim) Begin(t testing.TB) {
	t.Helper()
	if err := s.begin(); err != nil {
		t.Fatal(err)
	}
}

// begin starts the daemon unless one runs.
func (s *Sim) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil && !s.proc.ended() {
		return errors.New("the daemon runs already")
	}
	out, err := os.OpenFile(s.path("daemon.out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	p := &process{cmd: s.Daemon(), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	s.proc = p
	return nil
}

// Daemon is the daemon's command, not started.
func (s *Sim) Daemon() *exec.Cmd {
	argv := append(slices.Clone(s.Around), filepath.Join(s.bin, "agentlabd"), "--config", s.ConfigFile())
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = append(os.Environ(), s.Env...)
	return cmd
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// killed reports whether the ended process was ended by SIGKILL.
func (p *process) killed() bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

func (s *Sim) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Start starts the daemon and waits until its API answers and no plugin is
// starting.
func (s *Sim) Start(t testing.TB) {
	t.Helper()
	s.Begin(t)
	s.AwaitUp(t)
}

// AwaitUp waits until the daemon's API answers and no plugin is starting.
func (s *Sim) AwaitUp(t testing.TB) {
	t.Helper()
	Eventually(t, 30*time.Second, "the daemon is up", func() bool {
		st, err := s.Client.Status(t.Context())
		if err != nil {
			return false
		}
		for _, p := range st.Plugins {
			if p.State == "starting" || p.State == "stopped" {
				return false
			}
		}
		return true
	})
}

// PID is the daemon's process.
func (s *Sim) PID() int { return s.current().cmd.Process.Pid }

// Kill ends the daemon, if it runs, with SIGKILL and waits for its end.
func (s *Sim) Kill() {
	p := s.current()
	_ = p.cmd.Process.Kill() // only fails when it has ended
	<-p.done
}

// Term ends the daemon as systemd would, and gives its exit code, -1 when it
// had to be killed after 30 s.
func (s *Sim) Term(t testing.TB) int {
	t.Helper()
	p := s.current()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		t.Error("the daemon did not end within 30 s of SIGTERM")
		s.Kill()
	}
	return p.cmd.ProcessState.ExitCode()
}

// KeepUp starts the daemon again whenever it is killed, until stop is called,
// which gives the number of times. The daemon must run.
func (s *Sim) KeepUp(t testing.TB) (stop func() int) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan struct{})
	restarts := 0
	go func() {
		defer close(done)
		for {
			p := s.current()
			select {
			case <-quit:
				return
			case <-p.done:
			}
			if !p.killed() {
				t.Errorf("the daemon ended by itself: %s", p.cmd.ProcessState)
				return
			}
			restarts++
			if err := s.begin(); err != nil {
				t.Errorf("start the daemon again: %v", err)
				return
			}
		}
	}()
	var once sync.Once
	stop = func() int {
		once.Do(func() { close(quit) })
		<-done
		return restarts
	}
	t.Cleanup(func() { stop() })
	return stop
}

// Run runs the command line against the daemon, for at most a minute.
func (s *Sim) Run(args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return Capture(exec.CommandContext(ctx, filepath.Join(s.bin, "agentlab"), append([]string{"--socket", s.Socket()}, args...)...))
}

// Log is what the daemon wrote so far.
func (s *Sim) Log() string {
	b, _ := os.ReadFile(s.path("daemon.out"))
	return string(b)
}

// PluginPIDs are the plugin processes of this daemon and of its earlier runs:
// their environment names a directory of ours.
func (s *Sim) PluginPIDs() []int {
	var out []int
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, path := range exes {
		dir := filepath.Dir(path)
		if exe, err := os.Readlink(path); err != nil || exe != s.Plugin || !s.holds(dir) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// holds reports whether the process has something below the directory open: a
// plugin has the folder of its socket.
func (s *Sim) holds(proc string) bool {
	files, _ := filepath.Glob(filepath.Join(proc, "fd/*"))
	return slices.ContainsFunc(files, func(path string) bool {
		to, err := os.Readlink(path)
		return err == nil && strings.HasPrefix(to, s.Dir+"/")
	})
}

// KillPlugins ends plugin processes of this daemon with SIGKILL: those that
// choose picks by index, of n.
func (s *Sim) KillPlugins(choose func(n int) []int) (killed int) {
	pids := s.PluginPIDs()
	for _, i := range choose(len(pids)) {
		if syscall.Kill(pids[i], syscall.SIGKILL) == nil {
			killed++
		}
	}
	return killed
}

func everyOne(n int) (all []int) {
	for i := range n {
		all = append(all, i)
	}
	return all
}

func (s *Sim) cleanUp(t testing.TB) {
	if s.current() != nil {
		_ = s.Term(t)
	}
	s.Client.Close()
	defer s.KillPlugins(everyOne) // those that outlived it would write to a directory that is gone
	Eventually(t, 15*time.Second, "no plugin outlives its daemon", func() bool { return len(s.PluginPIDs()) == 0 })
	for _, bad := range []string{"DATA RACE", "panic"} {
		if strings.Contains(s.Log(), bad) && !(s.Panics && bad == "panic") {
			t.Errorf("%s in the daemon's log", bad)
		}
	}
	if t.Failed() {
		t.Logf("the daemon's log:\n%s", tail(s.Log(), 12_000))
	}
}
