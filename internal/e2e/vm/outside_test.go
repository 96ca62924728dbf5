package vm_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/agentlab/agentlab/internal/testkit"
)

// Addresses of the world outside the daemon's namespace. gitServer is in a range
// for documentation, neighbour in a private one that must never be reached.
const (
	gitServer = "198.51.100.10"
	wanHost   = "198.51.100.1"
	neighbour = "192.168.77.10"
)

// startOutside makes a second namespace that is the daemon's way out, with a git
// server in it and a listener on a private address.
func startOutside(t *testing.T, l *lab) {
	t.Helper()
	ns := fmt.Sprintf("agentlab-test-%d", os.Getpid())
	testkit.MustExec(t, "ip", "netns", "add", ns)
	testkit.OnEnd(t, func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	in := func(argv ...string) { testkit.MustExec(t, append([]string{"ip", "netns", "exec", ns}, argv...)...) }
	daemon := func(argv ...string) {
		testkit.MustExec(t, append([]string{"nsenter", "--net=" + l.Pin(), "--"}, argv...)...)
	}

	daemon("ip", "link", "add", "wan0", "type", "veth", "peer", "name", "out0", "netns", "/run/netns/"+ns)
	daemon("ip", "addr", "add", wanHost+"/24", "dev", "wan0")
	daemon("ip", "link", "set", "wan0", "up")
	daemon("ip", "route", "add", "default", "via", gitServer)
	in("ip", "link", "set", "lo", "up")
	in("ip", "addr", "add", gitServer+"/24", "dev", "out0")
	in("ip", "addr", "add", neighbour+"/32", "dev", "lo")
	in("ip", "link", "set", "out0", "up")

	serve(t, ns, "git", "daemon", "--reuseaddr", "--export-all", "--listen="+gitServer, "--port=9418", "--base-path="+gitRoot(t))
	serve(t, ns, "python3", "-m", "http.server", "--bind", neighbour, "8080")
	serve(t, ns, "python3", "-m", "http.server", "--bind", gitServer, "22")
	for _, port := range []string{"22", "8006"} {
		listenIn(t, l, port)
	}
	testkit.Eventually(t, 10*time.Second, "the git server answers", func() bool {
		return l.Inside("git", "ls-remote", "git://"+gitServer+"/remote.git").Code == 0
	})
}

// listenIn opens a port of the daemon's host, which guests must not reach.
func listenIn(t *testing.T, l *lab, port string) {
	t.Helper()
	stop := background(t, exec.Command("nsenter", "--net="+l.Pin(), "--", "python3", "-m", "http.server", "--bind", "0.0.0.0", port))
	l.listeners = append(l.listeners, stop)
	testkit.Eventually(t, 10*time.Second, "port "+port+" listens", func() bool {
		return l.Inside("curl", "-s", "-o", "/dev/null", "-m", "1", "http://10.77.0.1:"+port+"/").Code == 0
	})
}

func serve(t *testing.T, ns string, argv ...string) {
	t.Helper()
	background(t, exec.Command("ip", append([]string{"netns", "exec", ns}, argv...)...))
}

// background runs cmd until the test ends or stop is called.
func background(t *testing.T, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // git has its daemon in a child
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// gitRoot holds remote.git, whose run.sh fails with code 3.
func gitRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	repo := testkit.MakeRepo(t, filepath.Join(root, "work"), "#!/bin/sh\necho cloned by url\nexit 3\n")
	testkit.MustExec(t, "git", "clone", "-q", "--bare", repo, filepath.Join(root, "remote.git"))
	testkit.MustExec(t, "chmod", "-R", "a+rX", root)
	return root
}
