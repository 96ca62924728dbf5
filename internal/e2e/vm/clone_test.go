package vm_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agentlab/agentlab/internal/testkit"
)

const (
	clones  = 20 // that start from one frozen guest
	askable = 4  // of them, since a login takes a guest a second or more
)

// testClones starts many sandboxes at once from the same memory, ends the daemon in
// the middle, and wants each to be itself.
func (l *lab) testClones(t *testing.T) {
	names := make([]string, clones)
	for i := range names {
		names[i] = fmt.Sprintf("clone%02d", i)
		l.MustRun(t, "sandbox", "new", "--profile", "clone", "--name", names[i], "--detach")
	}
	testkit.Eventually(t, time.Minute, "a few have started and others have not", func() bool { return l.ready(names) >= clones/4 })
	l.Kill(t)
	l.Start(t)
	for _, name := range names {
		l.WaitReady(t, name, 3*time.Minute)
	}
	if got := l.started(t, "memory"); got < clones {
		t.Errorf("%d starts from memory, want %d at least", got, clones)
	}
	seen := map[string]string{}
	differ := func(name string, facts ...string) {
		t.Helper()
		for _, fact := range facts {
			if other := seen[fact]; fact == "" || other != "" && other != name {
				t.Errorf("%s and %s share %q", other, name, fact)
			}
			seen[fact] = name
		}
	}
	for _, name := range names {
		s := l.Sandbox(t, name)
		differ(name, s.Address, s.MAC, s.HostKey) // the last is made in the guest, and told in its hello
	}
	for i, answer := range l.askAll(t, names[:askable]) {
		facts := strings.Fields(answer)
		if len(facts) != len(cloneFacts) || facts[0] != names[i] || facts[1] != l.Sandbox(t, names[i]).MAC {
			t.Fatalf("%s says %q", names[i], answer)
		}
		differ(names[i], facts...)
	}
	l.MustRun(t, append([]string{"sandbox", "destroy", "--force"}, names...)...)
}

// cloneFacts are commands whose answers must differ between two guests.
var cloneFacts = []string{
	"hostname", "cat /sys/class/net/eth0/address", "cat /etc/machine-id", "cat /proc/sys/kernel/random/uuid",
	"head -c 16 /dev/urandom | base64", "cut -d\\  -f2 /etc/ssh/ssh_host_ed25519_key.pub", "sudo sha256sum /var/lib/agentlab/credential | cut -c1-64",
}

// askAll asks each by ssh, which has its host key verified.
func (l *lab) askAll(t *testing.T, names []string) []string {
	t.Helper()
	answers := make([]string, len(names))
	var asking sync.WaitGroup
	turns := make(chan struct{}, 3)
	for i, name := range names {
		turns <- struct{}{}
		asking.Go(func() {
			defer func() { <-turns }()
			r := l.SSH(t.Context(), name, strings.Join(cloneFacts, "; "), nil)
			answers[i] = r.Stdout
			if r.Code != 0 {
				t.Errorf("%s: exit %d, %s", name, r.Code, r.Stderr)
			}
		})
	}
	asking.Wait()
	return answers
}

func (l *lab) ready(names []string) (n int) {
	list := l.Run("sandbox", "list").Stdout
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) > 2 && strings.HasPrefix(fields[1], "clone") && fields[2] == "READY" {
			n++
		}
	}
	return n
}

// started counts the starts of VMs that came up in this way.
func (l *lab) started(t *testing.T, way string) int {
	t.Helper()
	events := l.MustRun(t, "events", "--type", "vm.started", "--tail", "100", "--json").Stdout
	return strings.Count(events, `"way":"`+way+`"`)
}
