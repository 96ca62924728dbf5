package cloud_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/internal/testkit"
)

// cloudInitEnds waits as cloud-init status --wait does, whose program takes an
// emulated guest from the very work that is waited for.
const cloudInitEnds = "until test -e /run/cloud-init/result.json; do sleep 1; done"

// testAccepted asks cloud-init itself: it used the CD-ROM, had no complaint, and
// finds nothing in the user-data that its schema does not know.
func (g *guest) testAccepted(t *testing.T) {
	g.root(t, cloudInitEnds)
	var result struct {
		V1 struct {
			Datasource string   `json:"datasource"`
			Errors     []string `json:"errors"`
		} `json:"v1"`
	}
	testkit.Decode(t, g.root(t, "cat /run/cloud-init/result.json"), &result)
	if got := result.V1; !strings.Contains(got.Datasource, "NoCloud") || !strings.Contains(got.Datasource, "/dev/sr0") || len(got.Errors) > 0 {
		t.Errorf("cloud-init's result: %+v", got)
	}
	if log := g.root(t, "grep -E 'WARNING|ERROR|Traceback' /var/log/cloud-init.log || true"); log != "" {
		t.Errorf("cloud-init's log:\n%s", log)
	}
	if out := g.root(t, "cloud-init schema --system 2>&1"); !strings.Contains(out, "Valid cloud-config") {
		t.Errorf("cloud-init schema: %s", out)
	}
}

// born is what shows that every part of the seed is in force. It is the same
// after a reboot.
const born = `
echo "hostname $(hostname)"
echo "hosts $(getent hosts "$(hostname)" | cut -d' ' -f1)"
echo "user $(getent passwd agent | cut -d: -f1,7) password $(passwd -S agent | cut -d' ' -f2)"
echo "keys $(cut -d' ' -f1,2 /home/agent/.ssh/authorized_keys)"
echo "address $(ip -4 -o addr show scope global | awk '{print $4}')"
echo "route $(ip -4 route show default | cut -d' ' -f1-3)"
echo "ipv6 $(ip -6 -o addr show scope global | wc -l)"
echo "bootstrap $(stat -c '%a %U:%G' ` + seed.BootstrapPath + `)"
echo "kept seed $(stat -Lc '%a %U:%G' /var/lib/cloud/instance/user-data.txt)"
echo "host keys $(cat /etc/ssh/ssh_host_*_key.pub | cut -d' ' -f1,2)"
echo "passwords $(sshd -T | grep -x 'passwordauthentication .*')"
echo "disk $(($(findmnt -bno SIZE /) >> 30)) GiB"
`

// testBorn compares the guest with its seed and with what the daemon knows.
func (g *guest) testBorn(t *testing.T) {
	key, err := os.ReadFile(g.Key() + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	s := g.Sandbox(t, g.name)
	short := func(key string) string { return strings.Join(strings.Fields(key)[:2], " ") }
	want := []string{
		"hostname " + s.Name,
		"hosts 127.0.1.1",
		"user agent:/bin/bash password L",
		"keys " + short(string(key)),
		"address " + s.Address + "/16",
		"route default via 10.77.0.1",
		"ipv6 0",
		"bootstrap 600 root:root",
		"kept seed 600 root:root",
		"host keys " + short(s.HostKey),
		"passwords passwordauthentication no",
		"disk 5 GiB", // of 6, without what ext4 keeps for itself
	}
	if diff := cmp.Diff(want, strings.Split(g.root(t, born), "\n")); diff != "" {
		t.Errorf("the guest differs from its seed (- want, + got):\n%s", diff)
	}
	// The token has bought the credential and is gone from where cloud-init put it.
	var boot guestapi.Bootstrap
	if err := json.Unmarshal([]byte(g.root(t, "cat "+seed.BootstrapPath)), &boot); err != nil {
		t.Fatal(err)
	}
	if boot.Token != "" || boot.Sandbox != s.ID || boot.VMID != s.VMID || boot.Controller == "" {
		t.Errorf("bootstrap of %s: vmid %d, sandbox %s, token used %v", s.ID, boot.VMID, boot.Sandbox, boot.Token == "")
	}
}
