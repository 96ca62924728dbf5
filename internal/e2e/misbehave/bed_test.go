package misbehave_test

import (
	"bytes"
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
)

const (
	repoURL = "https://git.example/repo.git" // simulated guests do not clone it
	// promptly is how long calls of the other plugins may take, on a machine that
	// does other things too; they take some milliseconds.
	promptly = 5 * time.Second
	// soon is how long all may take to be as it was.
	soon = 2 * time.Minute
)

// TestMain runs more tests at once than there are cores: they mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", "6")
	}
	os.Exit(m.Run())
}

// bed is a daemon whose secrets plugin is to misbehave. The others run from
// another copy of the same binary.
type bed struct {
	*testkit.Sim
	folder string // of the misbehaving copy
}

func newBed(t *testing.T) *bed {
	t.Helper()
	s := testkit.NewSim(t)
	b := &bed{Sim: s, folder: filepath.Join(s.Dir, "victim")}
	binary, err := os.ReadFile(s.Plugin)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(b.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.folder, "agentlab-plugin-sim")
	if err := os.WriteFile(path, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	s.WriteConfig(t, s.Config(s.Block("hypervisor", s.Plugin, "")+s.Block("network", s.Plugin, "")+s.Block("secrets", path, "")))
	s.Start(t)
	return b
}

// victim is the plugin that misbehaves.
func (b *bed) victim(t *testing.T) api.PluginInfo {
	t.Helper()
	p, err := b.Client.Plugin(t.Context(), "secrets")
	if err != nil {
		t.Fatalf("the daemon does not answer: %v", err)
	}
	return p
}

// ask makes a call of the victim, Describe, and gives what was wrong about it.
func (b *bed) ask(ctx context.Context) string {
	check, err := b.Client.CheckProfile(ctx, "sim")
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, f := range check.Findings {
		out = append(out, f.Message)
	}
	return strings.Join(out, "\n")
}

// askOthers makes a call of each other plugin, and expects it to be answered
// promptly.
func (b *bed) askOthers(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	findings, err := b.Client.HostFindings(t.Context())
	took := time.Since(began)
	if err != nil || len(findings) == 0 || took > promptly {
		t.Errorf("after %s the other plugins answer %v, %v", took, findings, err)
	}
	return took
}

// runJob runs a job that needs the secrets.
func (b *bed) runJob(t *testing.T) {
	t.Helper()
	a, err := b.Client.CreateJob(t.Context(), api.JobCreate{Profile: "sim", Task: "sim:print=x", RepoURL: repoURL})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if j, err := b.Client.WaitJob(ctx, a.Job.ID); err != nil || j.State != string(lab.JobCompleted) {
		t.Fatalf("the job is %s: %s, %v", j.State, j.Reason, err)
	}
}

// level is what a daemon holds.
type level struct {
	Processes   []string // that it or a plugin of it started, by executable
	RunDir      []string
	Descriptors map[string]int // without those of connections and the database, which come and go
	sockets     int
}

// mostSockets is how many more connections there may be than before.
const mostSockets = 3

func (b *bed) level(t *testing.T) level {
	t.Helper()
	b.Client.Close() // connections that idle
	var out level
	for _, pid := range b.offspring() {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		out.Processes = append(out.Processes, strings.TrimPrefix(exe, b.Dir+"/"))
	}
	slices.Sort(out.Processes)
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", b.PID()))
	if err != nil || len(fds) == 0 {
		t.Fatalf("the daemon is gone: %v", err)
	}
	out.Descriptors = map[string]int{}
	for _, fd := range fds {
		switch to, _ := os.Readlink(fd); {
		case strings.HasPrefix(to, "socket:"):
			out.sockets++
		case to != "" && !strings.Contains(to, "/agentlab.db"):
			out.Descriptors[b.plain(to)]++
		}
	}
	_ = filepath.WalkDir(filepath.Join(b.Dir, "run"), func(path string, _ os.DirEntry, err error) error {
		if err == nil { // else it was removed meanwhile
			out.RunDir = append(out.RunDir, b.plain(path))
		}
		return nil
	})
	slices.Sort(out.RunDir)
	return out
}

// plain is a name without what is by chance.
func (b *bed) plain(name string) string {
	return numbers.ReplaceAllString(strings.TrimPrefix(name, b.Dir+"/"), "N")
}

var numbers = regexp.MustCompile(`[0-9]+`)

// offspring are the daemon's children, and all that has the daemon's folder in
// its command line, whatever its session.
func (b *bed) offspring() (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range all {
		stat, _ := os.ReadFile(path)
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		_, after, _ := strings.Cut(string(stat), ") ") // state, then the parent
		fields := strings.Fields(after)
		child := len(fields) > 1 && fields[1] == strconv.Itoa(b.PID())
		if pid != b.PID() && (child || bytes.Contains(line, []byte(b.Dir))) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// resident is the daemon's VmRSS in MiB, and the most that it ever was.
func (b *bed) resident(t *testing.T) (now, most int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.PID()))
	if err != nil {
		t.Fatalf("the daemon is gone: %v", err)
	}
	read := func(key string) (kib int) {
		_, after, _ := strings.Cut(string(text), key+":")
		_, _ = fmt.Sscan(after, &kib)
		return kib >> 10
	}
	return read("VmRSS"), read("VmHWM")
}

// story collects all that was said of the victim, each thing once.
type story struct {
	mu sync.Mutex
	// mu guards:
	said []string
}

func (s *story) add(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text != "" && !slices.Contains(s.said, text) {
		s.said = append(s.said, text)
	}
}

func (s *story) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.said, "\n")
}

var ago = regexp.MustCompile(`[0-9.]+ s\b`)

// hear adds what the daemon says of its victim now.
func (s *story) hear(p api.PluginInfo) {
	if p.Message != "" {
		s.add(p.State + ": " + ago.ReplaceAllString(p.Message, "N s"))
	}
	for _, c := range p.Crashes {
		s.add("crash: " + c.Reason)
		if c.MemoryBytes > 200<<20 {
			s.add("it held more than 200 MiB")
		}
		for line := range strings.Lines(c.Output) {
			s.add("its output: " + strings.TrimSpace(line)[:min(len(strings.TrimSpace(line)), 300)])
		}
	}
}

// kill ends the victim's process by force.
func (b *bed) kill(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(b.victim(t).PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// misbehave has the victim do it: at its next start, which is made to come, or
// in its next call, which is made too.
func (b *bed) misbehave(t *testing.T, r row, s *story) (asked chan struct{}) {
	t.Helper()
	asked = make(chan struct{})
	if r.atStart != "" {
		close(asked)
		if err := world.AskAtStart(b.folder, r.atStart); err != nil {
			t.Fatal(err)
		}
		b.kill(t)
		return asked
	}
	faults := slices.Clone(r.faults)
	for i := range faults {
		if faults[i].Do == world.Spawn {
			faults[i].Message = b.Dir
		}
	}
	if err := b.World.SetFaults(t.Context(), faults...); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(asked)
		s.add(cmp.Or(b.ask(t.Context()), "answered"))
	}()
	return asked
}

// behave ends it.
func (b *bed) behave(t *testing.T, r row) {
	t.Helper()
	err := b.World.SetFaults(t.Context())
	if r.atStart != "" {
		err = world.AskAtStart(b.folder, "")
	}
	if err != nil {
		t.Fatal(err)
	}
}
