package crash_test

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/internal/testkit"
)

// word is one line that systemd would have got.
type word struct {
	at   time.Time
	text string
}

// serviceManager listens where systemd would.
type serviceManager struct {
	mu sync.Mutex
	// mu guards:
	words []word
}

func newServiceManager(t *testing.T, s *testkit.Sim) *serviceManager {
	t.Helper()
	path := filepath.Join(s.Dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &serviceManager{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			m.mu.Lock()
			for line := range strings.SplitSeq(string(buf[:n]), "\n") {
				m.words = append(m.words, word{time.Now(), line})
			}
			m.mu.Unlock()
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	s.Env = append(s.Env, "NOTIFY_SOCKET="+path)
	return m
}

// heard gives the words with the prefix that came after the time.
func (m *serviceManager) heard(prefix string, after time.Time) (out []word) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.words {
		if strings.HasPrefix(w.text, prefix) && w.at.After(after) {
			out = append(out, w)
		}
	}
	return out
}

// longestPause is the longest time between two of them.
func longestPause(words []word) (most time.Duration) {
	for i := range len(words) - 1 {
		most = max(most, words[i+1].at.Sub(words[i].at))
	}
	return most
}

// TestReadiness: ready is said once, when both APIs answer and every plugin had
// its chance, and the end is said before it comes. A plugin that cannot be
// started only changes the status.
func TestReadiness(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	m := newServiceManager(t, s)
	s.WriteConfig(t, s.Config(s.Block("hypervisor", s.Plugin, "")+s.Block("network", s.Plugin, "")+s.Block("secrets", s.Dir+"/no-such-plugin", "")))
	s.Begin(t)
	testkit.Eventually(t, patient, "the daemon is ready", func() bool { return len(m.heard("READY=1", time.Time{})) > 0 })
	if r := s.Run("status"); r.Code != 0 {
		t.Errorf("ready, and yet: %s", r.Stderr)
	}
	if conn, err := net.DialTimeout("tcp", s.Guests.String(), time.Second); err != nil {
		t.Errorf("ready, and yet guests are not heard: %v", err)
	} else {
		_ = conn.Close()
	}
	const status = "STATUS=serving; hypervisor sim ready, network sim ready, secrets sim backoff"
	if len(m.heard(status, time.Time{})) == 0 {
		t.Errorf("it said %v, not %q", m.heard("STATUS=", time.Time{}), status)
	}
	if code := s.Term(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	testkit.Eventually(t, patient, "the end is said", func() bool { return len(m.heard("STOPPING=1", time.Time{})) > 0 })
	if ready, stop := m.heard("READY=1", time.Time{}), m.heard("STOPPING=1", time.Time{}); len(ready) != 1 || len(stop) != 1 {
		t.Errorf("ready was said %d times, stopping %d times", len(ready), len(stop))
	}
	if n := len(m.heard("WATCHDOG=1", time.Time{})); n > 0 {
		t.Errorf("%d keepalives that nobody asked for", n)
	}
}

// TestKeepalives: they come in time while jobs run and plugins hang, and stay
// away while the database is held by somebody else.
func TestKeepalives(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3")
	}
	const patience = 4 * time.Second
	s := testkit.NewSim(t)
	m := newServiceManager(t, s)
	s.Env = append(s.Env, "WATCHDOG_USEC=4000000")
	s.Start(t)
	began := time.Now()
	var jobs []string
	for _, task := range []string{"sim:sleep=1s a", "sim:sleep=1s b", "sim:sleep=1s c", "sim:sleep=1s d"} {
		jobs = append(jobs, submit(t, s, api.JobCreate{Task: task}).ID)
	}
	for _, id := range jobs {
		if j := awaitJob(t, s, id); j.State != string(lab.JobCompleted) {
			t.Errorf("job %s is %s: %s", id, j.State, j.Reason)
		}
	}
	time.Sleep(patience)
	alive := m.heard("WATCHDOG=1", began)
	if pause := longestPause(alive); len(alive) < 2 || pause >= patience {
		t.Errorf("%d keepalives, the longest pause was %s", len(alive), pause)
	}

	release := holdDatabase(t, filepath.Join(s.Dir, "data", "agentlab.db"))
	held := time.Now()
	time.Sleep(2 * patience)
	// One may have been on its way.
	if late := m.heard("WATCHDOG=1", held.Add(patience/4)); len(late) > 0 {
		t.Errorf("%d keepalives while the database is held, the first after %s", len(late), late[0].at.Sub(held))
	}
	release()
	freed := time.Now()
	testkit.Eventually(t, patient, "keepalives come again", func() bool { return len(m.heard("WATCHDOG=1", freed)) > 0 })
}

// holdDatabase keeps everybody else from writing, as a program that forgot its
// transaction does.
func holdDatabase(t *testing.T, path string) (release func()) {
	t.Helper()
	const script = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
db.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
`
	cmd := exec.Command("python3", "-c", script, path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	release = sync.OnceFunc(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	t.Cleanup(release)
	if n, err := stdout.Read(make([]byte, 8)); err != nil || n == 0 {
		t.Fatalf("hold the database: %v", err)
	}
	return release
}

// TestWrongConfig: a configuration that cannot work has an exit code of its
// own and is told with its place.
func TestWrongConfig(t *testing.T) {
	t.Parallel()
	s := testkit.NewSim(t)
	s.WriteConfig(t, "data_dir = \"/x\"\n\nagent_brigde = \"b\"\n")
	r := testkit.Capture(s.Daemon())
	if want := s.ConfigFile() + ":3"; r.Code != 78 || !strings.Contains(r.Stderr, want) || !strings.Contains(r.Stderr, "hint: ") {
		t.Errorf("exit %d, %q; want 78, %q and a hint", r.Code, r.Stderr, want)
	}
}
