package testkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Daemon is an agentlabd --dev with directories and a namespace of its own.
type Daemon struct {
	Dir      string // configuration, keys, state
	RunDir   string // socket and pinned namespace
	Template string
	bin      string
	cmd      *exec.Cmd
	logPath  string
}

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Bin returns the path of one of the project's binaries, from $AGENTLAB_BIN or
// the checkout's bin folder, and skips the test when it has not been built.
func Bin(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("AGENTLAB_BIN")
	if dir == "" {
		dir = filepath.Join(Root(t), "bin")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("needs %s; run make build", path)
	}
	return path
}

// Root returns the checkout's top folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// NewDaemon makes a daemon's directories; Start runs it. When the test ends,
// everything is stopped and removed.
func NewDaemon(t testing.TB, template string) *Daemon {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces and VMs")
	}
	base, err := os.MkdirTemp("/var/tmp", "agentlab-test-")
	if err != nil {
		t.Fatal(err)
	}
	OnEnd(t, func() { _ = os.RemoveAll(base) }) // last, and whatever fails before
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &Daemon{
		Dir: filepath.Join(base, "dev"), RunDir: filepath.Join(base, "run"), Template: template,
		bin: filepath.Dir(Bin(t, "agentlabd")), logPath: filepath.Join(base, "daemon.out"),
	}
	OnEnd(t, func() {
		d.Stop(t)
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", tail(d.Log(), 12_000))
		}
	})
	return d
}

// Start runs the daemon and waits until its API answers.
func (d *Daemon) Start(t testing.TB, env ...string) {
	t.Helper()
	out, err := os.OpenFile(d.logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	args := []string{"--dev", "--dev-dir", d.Dir, "--dev-run-dir", d.RunDir}
	if d.Template != "" {
		args = append(args, "--template", d.Template)
	}
	d.cmd = exec.Command(filepath.Join(d.bin, "agentlabd"), args...)
	d.cmd.Stdout, d.cmd.Stderr = out, out
	d.cmd.Env = append(os.Environ(), env...)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 30*time.Second, "the daemon's API answers", func() bool {
		return d.Run("status").Code == 0
	})
}

// Kill ends the daemon with SIGKILL; its plugins follow by their lifelines.
func (d *Daemon) Kill(t testing.TB) {
	t.Helper()
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	_ = d.cmd.Wait()
}

// PID is the daemon's process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// SetQEMU adds a line to the qemu plugin's block, until the daemon's next start.
func (d *Daemon) SetQEMU(t testing.TB, line string) {
	t.Helper()
	// The plugin's block alone has this key.
	d.edit(t, func(text []byte) []byte {
		return bytes.Replace(text, []byte("uid_base"), []byte(line+"\n    uid_base"), 1)
	})
}

// Set adds a line outside of every block, until the daemon's next start.
func (d *Daemon) Set(t testing.TB, line string) {
	t.Helper()
	d.edit(t, func(text []byte) []byte { return append(text, "\n"+line+"\n"...) })
}

// edit changes the configuration and has the daemon take it over.
func (d *Daemon) edit(t testing.TB, change func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(d.Dir, "config.hcl")
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(text), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	reloads := func() int { return strings.Count(d.MustRun(t, "events").Stdout, "config.reloaded") }
	before := reloads()
	d.Hangup(t)
	Eventually(t, time.Minute, "the configuration is taken over", func() bool { return reloads() > before })
}

// Hangup has the daemon read its configuration again.
func (d *Daemon) Hangup(t testing.TB) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// Stop ends the daemon, its guests and its namespace and removes its
// directories. It may be called twice.
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(d.Dir, ".agentlab-dev")); errors.Is(err, fs.ErrNotExist) {
		return // it was stopped, or never came so far
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patient(time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "agentlabd"), "--dev", "--stop", "--dev-dir", d.Dir, "--dev-run-dir", d.RunDir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("stop the daemon: %v\n%s", err, out)
	}
	if d.cmd != nil && d.cmd.ProcessState == nil {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
	}
}

// Log is what the daemon wrote so far.
func (d *Daemon) Log() string {
	var out strings.Builder
	for _, path := range []string{d.logPath, filepath.Join(d.Dir, "agentlabd.log")} {
		b, _ := os.ReadFile(path)
		out.Write(b)
	}
	return out.String()
}

// Socket is the control API's socket.
func (d *Daemon) Socket() string { return filepath.Join(d.RunDir, "agentlabd.sock") }

// Pin is the daemon's network namespace, for nsenter --net=.
func (d *Daemon) Pin() string { return filepath.Join(d.RunDir, "netns") }

// Run runs the command line against the daemon, for at most five minutes.
func (d *Daemon) Run(args ...string) Result { return d.RunIn("", args...) }

// RunIn is Run in a directory.
func (d *Daemon) RunIn(dir string, args ...string) Result {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "agentlab"), append([]string{"--socket", d.Socket()}, args...)...)
	cmd.Dir = dir
	return Capture(cmd)
}

// MustRun is Run for a command that has to succeed.
func (d *Daemon) MustRun(t testing.TB, args ...string) Result {
	t.Helper()
	r := d.Run(args...)
	if r.Code != 0 {
		t.Fatalf("agentlab %s: exit %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r
}

// WriteProfile adds a profile file.
func (d *Daemon) WriteProfile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.Dir, "profiles", name+".hcl"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// WriteBundle encrypts a bundle for the daemon's key with the real age.
func (d *Daemon) WriteBundle(t testing.TB, name, yaml string) {
	t.Helper()
	for _, tool := range []string{"age", "age-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	recipient, err := exec.Command("age-keygen", "-y", filepath.Join(d.Dir, "keys", "age.key")).Output()
	if err != nil {
		t.Fatalf("age-keygen: %v", err)
	}
	path := filepath.Join(d.Dir, "secrets", name+".age")
	cmd := exec.Command("age", "-r", strings.TrimSpace(string(recipient)), "-o", path)
	cmd.Stdin = strings.NewReader(yaml)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("age: %v\n%s", err, out)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Capture runs cmd and collects how it went.
func Capture(cmd *exec.Cmd) Result {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second // a grandchild may hold the pipes
	err := cmd.Run()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		r.Code, r.Stderr = -1, r.Stderr+err.Error()
	}
	return r
}

// Patient is how long a test waits for what takes at most d on a machine that does
// nothing else. Real guests share theirs with other tests, and often with strangers.
func Patient(d time.Duration) time.Duration { return 3 * d }

// Eventually waits until cond holds and fails the test when it does not, although it was
// given what is Patient for within. It looks less often where there is more time: a look
// may be a whole program.
func Eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	pause := min(max(within/200, 50*time.Millisecond), 500*time.Millisecond)
	within = Patient(within)
	for deadline := time.Now().Add(within); !cond(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

func tail(s string, n int) string {
	if len(s) > n {
		return fmt.Sprintf("… (%d bytes cut)\n%s", len(s)-n, s[len(s)-n:])
	}
	return s
}
