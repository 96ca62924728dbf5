package vm_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/internal/testkit"
)

// testTwo makes two sandboxes without a job, of which the first was a spare: what is done
// in it later holds for such a one, too. In the other silent goes on.
func (l *lab) testTwo(t *testing.T) (silent string) {
	l.SetQEMU(t, "spares = 1")
	l.MustRun(t, "template", "warm", "--profile", "job")
	testkit.Eventually(t, 2*time.Minute, "a spare waits", func() bool {
		return strings.Contains(l.noted(t, "spares", "*", "spare.json"), `"waits":true`)
	})
	for _, name := range []string{"one", "two"} {
		l.MustRun(t, "sandbox", "new", "--profile", "job", "--name", name, "--detach")
	}
	for _, name := range []string{"one", "two"} {
		l.WaitReady(t, name, 3*time.Minute)
	}
	one := l.Sandbox(t, "one")
	if record := l.noted(t, "vms", fmt.Sprint(one.VMID), "vm.json"); !strings.Contains(record, `"mark"`) {
		t.Errorf("no spare became the first sandbox: %s", record)
	}
	return l.startSilentJob(t) // the host waits longest for this one
}

// testSharedGuest does in one sandbox what would otherwise cost a start each.
func (l *lab) testSharedGuest(t *testing.T) {
	t.Run("ssh", l.testSSH)
	t.Run("network", l.testNetwork)
	t.Run("failed, by url", l.testFailedByURL)
	t.Run("log beyond its quota", l.testLogFlood)
	t.Run("cancelled", l.testCancelled)
	t.Run("reboot from inside", l.testReboot)
	t.Run("fork bomb and timeout", l.testForkBomb)
	l.MustRun(t, "sandbox", "destroy", "one", "--force")
}

// noted gives files of the hypervisor plugin's state folder, one after the other.
func (l *lab) noted(t *testing.T, path ...string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(append([]string{l.Dir, "data", "*", "hypervisor-qemu"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

func (l *lab) testSSH(t *testing.T) {
	r := l.ssh(t, "one", "id -un; exit 7", time.Minute)
	if r.Code != 7 || strings.TrimSpace(r.Stdout) != "agent" {
		t.Fatalf("exit %d, stdout %q, stderr %q; want 7 and agent", r.Code, r.Stdout, r.Stderr)
	}
	// A host that answers with another key is refused: two's address, one's key.
	one, two := l.Sandbox(t, "one"), l.Sandbox(t, "two")
	if one.HostKey == "" || one.HostKey == two.HostKey {
		t.Fatalf("host keys are not the guests' own: %q, %q", one.HostKey, two.HostKey)
	}
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte(two.Address+" "+one.HostKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wrong := l.Inside("ssh", "-i", l.Key(), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile="+known, "agent@"+two.Address, "true")
	if wrong.Code == 0 || !strings.Contains(wrong.Stderr, "Host key verification failed") {
		t.Errorf("a wrong host key was taken: exit %d, %s", wrong.Code, wrong.Stderr)
	}
}

// probing connects to all addresses at once, in one process: a guest that is emulated on
// a busy machine needs a second to start one. Three seconds after all those answered that
// have to, what has not answered is shut.
const probing = `
import selectors, socket, sys, time

waiting = selectors.DefaultSelector()
missing = 0
for line in sys.argv[1:]:
    name, source, host, port, wanted = line.split(",")
    s = socket.socket()
    s.setblocking(False)
    s.bind((source, 0))
    s.connect_ex((host, int(port)))
    waiting.register(s, selectors.EVENT_WRITE, (name, wanted == "true"))
    missing += wanted == "true"
end = time.monotonic() + 60
while waiting.get_map() and time.monotonic() < end:
    for key, _ in waiting.select(max(0, end - time.monotonic())):
        name, wanted = key.data
        waiting.unregister(key.fileobj)
        if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            print(name, "open")
            missing -= wanted
    if not missing:
        end = min(end, time.monotonic() + 3)
        missing = -1
print("done")
`

// testNetwork tries from inside what must be shut. Each probe has a control
// that shows that the target answers somebody.
func (l *lab) testNetwork(t *testing.T) {
	const chosen = "10.77.200.200" // an address that the guest took itself
	one, two := l.Sandbox(t, "one"), l.Sandbox(t, "two")
	curl := func(url string, extra ...string) []string {
		return append([]string{"curl", "-s", "-o", "/dev/null", "-m", "20", url}, extra...)
	}
	controls := map[string][]string{
		"host port 8006":  curl("http://10.77.0.1:8006/"),
		"host port 22":    curl("http://10.77.0.1:22/"),
		"git server's 22": curl("http://" + gitServer + ":22/"),
		"private address": curl("http://" + neighbour + ":8080/"),
		"other sandbox":   {"timeout", "20", "bash", "-c", "exec 3<>/dev/tcp/" + two.Address + "/22"},
	}
	for what, argv := range controls {
		if r := l.Inside(argv...); r.Code != 0 {
			t.Errorf("control: %s does not answer the host: %s", what, r.Stderr)
		}
	}
	probes := []struct {
		what, source, host, port string
		open                     bool
	}{
		{"guest API", one.Address, "10.77.0.1", "8844", true},
		{"listed git server", one.Address, gitServer, "9418", true},
		{"other port of it", one.Address, gitServer, "22", false},
		{"host port 22", one.Address, "10.77.0.1", "22", false},
		{"host port 8006", one.Address, "10.77.0.1", "8006", false},
		{"host's other address", one.Address, wanHost, "8006", false},
		{"private address", one.Address, neighbour, "8080", false},
		{"other sandbox", one.Address, two.Address, "22", false},
		{"guest API from another address", chosen, "10.77.0.1", "8844", false},
	}
	const dev = "dev=$(ip -o route get 10.77.0.1 | sed -E \"s/.* dev ([^ ]+).*/\\1/\"); "
	line := dev + "sudo ip addr add " + chosen + "/32 dev $dev && python3 -IS -"
	for i, p := range probes {
		line += fmt.Sprintf(" probe%d,%s,%s,%s,%v", i, p.source, p.host, p.port, p.open)
	}
	line += "; sudo ip addr del " + chosen + "/32 dev $dev"
	r := l.sshIn(t, "one", line, probing, 2*time.Minute)
	if !strings.HasSuffix(r.Stdout, "done\n") {
		t.Fatalf("the probe itself does not work: exit %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	for i, p := range probes {
		if got := strings.Contains(r.Stdout, fmt.Sprintf("probe%d open\n", i)); got != p.open {
			t.Errorf("%s: open = %v, want %v\n%s%s", p.what, got, p.open, r.Stdout, r.Stderr)
		}
	}
}

func (l *lab) testFailedByURL(t *testing.T) {
	job := l.StartJob(t, "--sandbox", "one", "--repo", "git://"+gitServer+"/remote.git", "--task", "fail")
	done := l.WaitJob(t, job, 2*time.Minute)
	if done.State != "FAILED" || done.ExitCode == nil || *done.ExitCode != 3 {
		t.Fatalf("state %s, exit %v (%s); want FAILED, 3", done.State, done.ExitCode, done.Reason)
	}
	if log := l.MustRun(t, "job", "logs", job).Stdout; !strings.Contains(log, "cloned by url") {
		t.Errorf("log: %s", log)
	}
	testkit.Eventually(t, 20*time.Second, "the sandbox is READY after the job", func() bool {
		return l.Sandbox(t, "one").State == "READY"
	})
}

func (l *lab) runScript(t *testing.T, script string, args ...string) string {
	t.Helper()
	return l.runScriptIn(t, "one", script, args...)
}

func (l *lab) runScriptIn(t *testing.T, sandbox, script string, args ...string) string {
	t.Helper()
	repo := testkit.MakeRepo(t, filepath.Join(t.TempDir(), "repo"), script)
	return l.StartJob(t, append([]string{"--sandbox", sandbox, "--repo", repo, "--task", "x"}, args...)...)
}

// startSilentJob begins a job in two and stops the runner beside it, so that
// the guest neither keeps the time nor reports anything. Other tests go on
// meanwhile.
func (l *lab) startSilentJob(t *testing.T) string {
	t.Helper()
	job := l.runScriptIn(t, "two", "#!/bin/sh\necho silence\nsleep 600\n", "--ttl", "60s")
	l.waitLog(t, job, "silence", 2*time.Minute)
	if r := l.ssh(t, "two", "sudo systemctl kill -s STOP agent-runner", time.Minute); r.Code != 0 {
		t.Fatalf("the runner was not stopped: %s", r.Stderr)
	}
	if j := l.Job(t, job); j.EndedAt != nil {
		t.Fatalf("the guest ended the job before its runner was stopped: %s (%s)", j.State, j.Reason)
	}
	return job
}

// testHostDeadline shows that the host ends a job that its guest does not end,
// and that nothing of it goes on in a sandbox that stays.
func (l *lab) testHostDeadline(t *testing.T, job string) {
	if job == "" {
		t.Skip("the shared guests' tests came to no such job")
	}
	done := l.WaitJob(t, job, 3*time.Minute)
	if done.State != "TIMEOUT" {
		t.Errorf("state %s (%s), want TIMEOUT", done.State, done.Reason)
	}
	testkit.Eventually(t, time.Minute, "the sandbox is stopped", func() bool { return l.Sandbox(t, "two").State == "STOPPED" })
	l.MustRun(t, "sandbox", "destroy", "two", "--force")
}

// testLogFlood writes far more than the quota; the host keeps to it and ends the job.
func (l *lab) testLogFlood(t *testing.T) {
	const logQuota = 8 << 20 // an emulated guest needs a second for a few MiB
	l.Set(t, fmt.Sprintf("log_max_bytes = %d", logQuota))
	job := l.runScript(t, "#!/bin/sh\nhead -c 1073741824 /dev/zero | tr '\\0' x\n")
	done := l.WaitJob(t, job, 3*time.Minute)
	if done.State != "FAILED" || !strings.Contains(done.Reason, "log") {
		t.Errorf("state %s (%s), want FAILED because of the log", done.State, done.Reason)
	}
	if done.LogBytes == 0 || done.LogBytes > logQuota+(1<<20) {
		t.Errorf("the log has %d bytes, the quota is %d", done.LogBytes, logQuota)
	}
}

// testForkBomb ends by the deadline: by the guest's own, and then the guest is
// still of use, or where the bomb left it no room for that, by the host's.
func (l *lab) testForkBomb(t *testing.T) {
	job := l.runScript(t, "#!/bin/bash\nb() { b | b & }\nb\nsleep 600\n", "--ttl", "10s")
	done := l.WaitJob(t, job, 3*time.Minute)
	if done.State != "TIMEOUT" {
		t.Errorf("state %s (%s), want TIMEOUT", done.State, done.Reason)
	}
	if l.Sandbox(t, "one").State != "READY" {
		t.Logf("the host ended it: %s", done.Reason)
		return
	}
	if r := l.ssh(t, "one", "true", time.Minute); r.Code != 0 {
		t.Errorf("the guest does not answer after the fork bomb: %s", r.Stderr)
	}
}

func (l *lab) testCancelled(t *testing.T) {
	job := l.runScript(t, "#!/bin/sh\necho started\nsleep 600\n")
	l.waitLog(t, job, "started", 2*time.Minute)
	l.MustRun(t, "job", "cancel", job)
	done := l.WaitJob(t, job, time.Minute)
	if done.State != "CANCELLED" {
		t.Errorf("state %s (%s), want CANCELLED", done.State, done.Reason)
	}
}

// testReboot shows that a token which was used up is not needed again.
func (l *lab) testReboot(t *testing.T) {
	boot := func() string {
		return strings.TrimSpace(l.ssh(t, "one", "cat /proc/sys/kernel/random/boot_id", 30*time.Second).Stdout)
	}
	secrets := func() string {
		return l.ssh(t, "one", "sudo grep -rl "+planted+" /run/agentlab/secrets", 30*time.Second).Stdout
	}
	testkit.Eventually(t, time.Minute, "the guest has its secrets", func() bool { return secrets() != "" })
	first := boot()
	if first == "" {
		t.Fatal("no boot id")
	}
	hellos := func() int {
		return strings.Count(l.MustRun(t, "events", "--sandbox", "one", "--type", "guest.hello").Stdout, "guest.hello")
	}
	said := hellos()
	l.ssh(t, "one", "sudo systemctl reboot", 30*time.Second)
	// Asking by ssh all the while would take the guest most of its shutdown and boot.
	testkit.Eventually(t, 3*time.Minute, "the guest says hello again", func() bool { return hellos() > said })
	testkit.Eventually(t, time.Minute, "the guest is back with its secrets", func() bool {
		b := boot()
		return b != "" && b != first && secrets() != ""
	})
}

// testNoSecretLeft looks for the planted secret where it must not be.
func testNoSecretLeft(t *testing.T, l *lab) {
	t.Helper()
	if r := testkit.Capture(exec.Command("grep", "-rlF", "--exclude=netns", planted, l.Dir, l.RunDir)); r.Code != 1 {
		t.Errorf("the planted secret is in files of the daemon: %s%s", r.Stdout, r.Stderr)
	}
	if strings.Contains(l.Log(), planted) {
		t.Error("the planted secret is in the daemon's log")
	}
}

// testNoSecretInArguments looks at every process of this machine while a guest
// has the secret. A process of the test's own shows that it would be found.
func testNoSecretInArguments(t *testing.T) {
	t.Helper()
	with := func(text string) (found []string) {
		all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range all {
			if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), text) {
				found = append(found, strings.ReplaceAll(string(b), "\x00", " "))
			}
		}
		return found
	}
	const control = "agentlab-control-7c41"
	cmd := exec.Command("sh", "-c", "read x; : "+control)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	defer background(t, cmd)()
	testkit.Eventually(t, 5*time.Second, "the control is found", func() bool { return len(with(control)) > 0 })
	if found := with(planted); len(found) > 0 {
		t.Errorf("the planted secret is in the arguments of %q", found)
	}
}
