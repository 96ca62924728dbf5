package vm_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agentlab/agentlab/internal/testkit"
)

// clones start from one frozen guest.
const clones = 20

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
	for i, answer := range l.askAll(t, names) {
		s := l.Sandbox(t, names[i])
		facts := append(strings.Fields(answer), s.Address, s.MAC, s.HostKey)
		if len(facts) != len(cloneFacts)+3 || facts[0] != names[i] {
			t.Fatalf("%s says %q", names[i], answer)
		}
		if facts[1] != s.MAC {
			t.Errorf("%s has the MAC address %s, not %s", names[i], facts[1], s.MAC)
		}
		for _, fact := range facts {
			if other := seen[fact]; fact == "" || other != "" && other != names[i] {
				t.Errorf("%s and %s share %q", other, names[i], fact)
			}
			seen[fact] = names[i]
		}
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
