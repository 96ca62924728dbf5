package driver_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/driver"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
)

// nft runs one command whose words may have spaces in them.
func nft(t *testing.T, words ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "nft", words...).CombinedOutput(); err != nil {
		t.Fatalf("nft %q: %v: %s", words, err, out)
	}
}

// deleteRules deletes the rules of a chain of ours that hold the text.
func deleteRules(t *testing.T, chain, text string) {
	t.Helper()
	for line := range strings.Lines(output(t, "nft -a list chain inet agentlab "+chain)) {
		if rule, handle, ok := strings.Cut(strings.TrimSpace(line), " # handle "); ok && strings.Contains(rule, text) {
			nft(t, "delete", "rule", "inet", "agentlab", chain, "handle", handle)
		}
	}
}

// What somebody else writes into a sandbox's chain does not become its policy,
// and what somebody takes from it is missed until it is asked for again.
func TestForeignAllowIsNoPolicy(t *testing.T) {
	const chain = "sandbox_sbx_tap"
	tests := []struct {
		name   string
		damage func(t *testing.T)
		whole  bool // the host's rules alone tell what belongs there
	}{
		{"a rule too many", func(t *testing.T) {
			nft(t, "insert", "rule", "inet", "agentlab", chain, "ip daddr 169.254.169.254 accept")
		}, true},
		{"with a comment like ours", func(t *testing.T) {
			nft(t, "insert", "rule", "inet", "agentlab", chain, `ip daddr 169.254.169.254 accept comment "allow 3 of 3"`)
		}, true},
		{"with a comment of ours", func(t *testing.T) {
			nft(t, "insert", "rule", "inet", "agentlab", chain, `ip daddr 169.254.169.254 accept comment "allow 1 of 2"`)
		}, false},
		{"a rule too few", func(t *testing.T) { deleteRules(t, chain, "allow 1 of 2") }, false},
		{"no rule left", func(t *testing.T) { deleteRules(t, chain, "allow") }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, driver.Config{}, func(w *world) {
				w.applyHost()
				req := tapRequest()
				w.attach(req)
				before := w.kernel()
				test.damage(t)
				if a := w.list(""); len(a) != 1 || !a[0].Drifted {
					t.Errorf("drift is not reported: %+v", a)
				}
				w.applyHost()
				if rules := output(t, "nft list ruleset"); strings.Contains(rules, "169.254.169.254 ") {
					t.Errorf("a foreign rule stays:\n%s", rules)
				}
				a := w.list("")
				if len(a) != 1 || a[0].Drifted == test.whole {
					t.Errorf("after the host was applied: %+v", a)
				}
				if test.whole && !cmp.Equal(a[0].InForce, req) {
					t.Errorf("(-want +in force)\n%s", cmp.Diff(req, a[0].InForce))
				}
				if diff := cmp.Diff(network.Attachment{InForce: req}, w.attach(req)); diff != "" {
					t.Errorf("attached again (-want +got)\n%s", diff)
				}
				if diff := cmp.Diff(before, w.kernel()); diff != "" {
					t.Errorf("attached again (-before +after)\n%s", diff)
				}
			})
		})
	}
}

// Denied connections end when the rules change, those of all sandboxes at once
// and nothing else; while nothing changes the host's table is not looked at.
func TestDeniedConnectionsEndWithAChange(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		a, b := w.newGuest(16, network.ModeNAT), w.newGuest(17, network.ModeNAT)
		w.attach(a.req)
		w.attach(b.req)
		w.applyHost()
		open := func(source, port string) {
			err := run("conntrack -I -p udp -s " + source + " -d " + neighbour + " --sport 1000 --dport " + port + " -t 600")
			if err != nil {
				t.Fatal(err)
			}
		}
		tracked := func() (ports []string) {
			for _, port := range []string{"2001", "2002", "2003"} {
				if strings.Contains(output(t, "conntrack -L -p udp"), "dport="+port+" ") {
					ports = append(ports, port)
				}
			}
			return ports
		}
		check := func(when string, want ...string) {
			t.Helper()
			if diff := cmp.Diff(want, tracked()); diff != "" {
				t.Errorf("%s: ports of tracked connections (-want +got)\n%s", when, diff)
			}
		}
		open(a.req.Address, "2001")
		open(b.req.Address, "2002")
		open(hostWAN, "2003")
		w.applyHost()
		check("nothing changed", "2001", "2002", "2003")
		if err := run("nft add rule inet agentlab deny accept"); err != nil {
			t.Fatal(err)
		}
		w.applyHost()
		check("a rule was put back", "2003")
		open(a.req.Address, "2001")
		w.driver = driver.New(driver.Config{NFTBinary: "nft", HostUUID: "0b1e"}, nullLogger())
		w.applyHost()
		check("the plugin began anew", "2003")
	})
}

// flusher is an nft that loses all rules between a driver's reading them and
// its changing them.
const flusher = `#!/bin/sh
if [ "$1" = -f ]; then
	nft flush ruleset
fi
exec nft "$@"
`

// Rules that go away under a call are a conflict, which is tried again, and no
// thing that is missing, which nobody would try again.
func TestFlushedMeanwhile(t *testing.T) {
	inWorld(t, driver.Config{}, func(w *world) {
		w.applyHost()
		w.attach(tapRequest())
		path := filepath.Join(t.TempDir(), "nft")
		if err := os.WriteFile(path, []byte(flusher), 0o755); err != nil {
			t.Fatal(err)
		}
		good := w.driver
		w.driver = driver.New(driver.Config{NFTBinary: path, HostUUID: "0b1e"}, nullLogger())
		err := w.driver.Detach(t.Context(), "sbx_tap")
		if fault.ClassOf(err) != fault.Conflict {
			t.Errorf("detach: %v is %s", err, fault.ClassOf(err))
		}
		w.driver = good
		w.applyHost()
		w.attach(tapRequest())
		w.driver = driver.New(driver.Config{NFTBinary: path, HostUUID: "0b1e"}, nullLogger())
		req := tapRequest()
		req.Generation, req.Mode, req.Allow = 4, network.ModeNAT, nil
		if _, err := w.driver.Attach(t.Context(), req); fault.ClassOf(err) != fault.Conflict {
			t.Errorf("attach: %v is %s", err, fault.ClassOf(err))
		}
	})
}
