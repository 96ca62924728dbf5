package unit

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/internal/testkit"
	"github.com/agentlab/agentlab/plugins/sim/world"
)

// Run installs the service in the guest and does to it what happens to
// services. The guest keeps it; AfterReboot looks at it again and removes it.
func Run(t *testing.T, g Guest) {
	g.bring(t)
	if !t.Run("install", g.testInstall) {
		t.FailNow()
	}
	t.Run("unit", g.testUnit)
	t.Run("who may use the socket", g.testSocket)
	t.Run("restart", g.testRestart)
	t.Run("killed", g.testKilled)
	t.Run("wrong configuration", g.testWrongConfig)
	t.Run("watchdog", g.testWatchdog)
}

const configuration = `agent_subnet = "127.77.0.0/16"

plugin "hypervisor" "sim" {
  path = "/opt/agentlab/checkout/bin/agentlab-plugin-sim"

  config {
    world     = "/var/lib/agentlab-world"
    heartbeat = "1s"
  }
}

plugin "network" "sim" {
  path = "/opt/agentlab/checkout/bin/agentlab-plugin-sim"

  config {
    world = "/var/lib/agentlab-world"
  }
}
`

const install = "/opt/agentlab/checkout/scripts/install_host.sh"

// testInstall: a first run makes what is missing and starts nothing when asked
// so; a second keeps what the operator wrote, and a third does nothing.
func (g Guest) testInstall(t *testing.T) {
	g.must(t, install+" --no-start 2>&1")
	g.want(t, `stat -c '%a %U:%G %n' /usr/local/bin/agentlabd /usr/lib/agentlab/plugins /etc/agentlab /etc/agentlab/config.hcl \
  /etc/agentlab/keys /etc/agentlab/keys/agentlab_id_ed25519 /etc/agentlab/secrets /etc/systemd/system/agentlabd.service
getent group agentlab | cut -d: -f1
ls /usr/lib/agentlab/plugins
systemctl is-enabled agentlabd || true
systemctl is-active agentlabd || true`,
		`755 root:root /usr/local/bin/agentlabd
755 root:root /usr/lib/agentlab/plugins
755 root:root /etc/agentlab
600 root:root /etc/agentlab/config.hcl
700 root:root /etc/agentlab/keys
600 root:root /etc/agentlab/keys/agentlab_id_ed25519
700 root:root /etc/agentlab/secrets
644 root:root /etc/systemd/system/agentlabd.service
agentlab
disabled
inactive`)
	g.must(t, fmt.Sprintf(`cat >/etc/agentlab/config.hcl <<'END'
%sEND
echo 'profile "sim" { template = "debian-12" }' >/etc/agentlab/profiles/sim.hcl
sha256sum /etc/agentlab/config.hcl /etc/agentlab/keys/* >/tmp/written`, configuration))
	out := g.must(t, install+" 2>&1 && sha256sum --quiet -c /tmp/written && systemctl is-active agentlabd && systemctl is-enabled agentlabd")
	if strings.Contains(out, "installed ") {
		t.Errorf("a second run installed what was there:\n%s", out)
	}
	g.must(t, `pid=$(show MainPID)
`+install+` && is "$pid" show MainPID
echo >>/opt/agentlab/checkout/packaging/systemd/agentlabd.service
`+install+` && not is "$pid" show MainPID && is active show ActiveState`)
}

// testUnit: the unit is what systemd accepts, comes with the machine, and is
// ready only when the daemon says so.
func (g Guest) testUnit(t *testing.T) {
	g.want(t, "systemd-analyze verify agentlabd.service 2>&1", "")
	g.want(t, "systemctl list-dependencies --plain multi-user.target | grep -o agentlabd.service", "agentlabd.service")
	g.want(t, "show Type; show NotifyAccess; show WatchdogUSec; show StatusText; agentlab status >/dev/null && echo answers",
		"notify\nmain\n1min\nserving; hypervisor sim ready, network sim ready\nanswers")
}

// testSocket: root and the group, nobody else.
func (g Guest) testSocket(t *testing.T) {
	g.want(t, "stat -c '%a %U:%G' /run/agentlab /run/agentlab/agentlabd.sock /var/lib/agentlab /var/log/agentlab",
		"750 root:agentlab\n660 root:agentlab\n711 root:root\n750 root:root")
	g.must(t, `setpriv --reuid 65534 --regid agentlab --clear-groups agentlab status
if setpriv --reuid 65534 --regid 65534 --clear-groups agentlab status 2>/tmp/refused; then exit 1; fi
grep -q 'join the group' /tmp/refused`)
}

// submit starts a job and waits until it runs. Its id is in $job.
func submit(task string) string {
	return `job=$(agentlab job run --repo https://git.example/repo.git --profile sim --task "` + task + `" --detach --json | field id)
await 60 "the job runs" is RUNNING job_state "$job"
`
}

// finish waits for the end of the job and shows its log.
const finish = `await 90 "the job has ended" is COMPLETED job_state "$job"
await 60 "the sandbox is gone" is DESTROYED eval 'agentlab sandbox show "$(agentlab job show "$job" --json | field sandbox_id)" --json | field state'
agentlab job logs "$job"`

// testRestart: a job goes on, and so does a program that left the unit's group
// as VMs do; one that did not ends with the daemon.
func (g Guest) testRestart(t *testing.T) {
	out := g.must(t, submit("sim:print=before sim:sleep=12s sim:print=behind")+`
group=/sys/fs/cgroup$(show ControlGroup)/cgroup.procs
for name in child vm; do
  setsid -f sh -c "echo \$\$ >/run/$name.pid; echo \$\$ >$group; exec sleep 1000"
  await 5 "$name began" test -s /run/$name.pid
done
grep -q agentlabd.service /proc/$(cat /run/vm.pid)/cgroup
SCOPE_PID=$(cat /run/vm.pid) /opt/agentlab/scope.test -test.run '^TestScope$' -test.v | grep -- '--- PASS'
old=$(show MainPID)
systemctl restart agentlabd
not is "$old" show MainPID
test -e /proc/$(cat /run/vm.pid)/cgroup
grep -q agentlab-vm-1042.scope /proc/$(cat /run/vm.pid)/cgroup
not test -e /proc/$(cat /run/child.pid)
kill $(cat /run/vm.pid)
`+finish)
	if !strings.Contains(out, "before\nbehind\n") {
		t.Errorf("the job's log:\n%s", out)
	}
	g.noDoubledEffect(t)
	// An orderly end: no plugin was ended before its daemon.
	g.want(t, "journalctl -u agentlabd -o cat | grep -c 'plugin is down' || true", "0")
	g.want(t, "show NRestarts", "0")
}

// testKilled: systemd starts a killed daemon again, and its job goes on.
func (g Guest) testKilled(t *testing.T) {
	out := g.must(t, submit("sim:print=before sim:sleep=12s sim:print=behind")+`
old=$(show MainPID)
plugins=$(pgrep -f agentlab-plugin-sim)
kill -9 "$old"
await 60 "systemd started it again" eval 'not is "$old" show MainPID && not is 0 show MainPID && is active show ActiveState'
for pid in $plugins; do not test -e /proc/$pid; done
is 1 show NRestarts
`+finish)
	if !strings.Contains(out, "before\nbehind\n") {
		t.Errorf("the job's log:\n%s", out)
	}
	g.noDoubledEffect(t)
}

// noDoubledEffect looks at all that ever happened to the simulated world.
func (g Guest) noDoubledEffect(t *testing.T) {
	t.Helper()
	var log []world.Effect
	for line := range strings.Lines(g.must(t, "cat /var/lib/agentlab-world/effects.log")) {
		var e world.Effect
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		log = append(log, e)
	}
	for _, wrong := range testkit.WrongEffects(log) {
		t.Error(wrong)
	}
}

// testWrongConfig: systemd does not try again what cannot work, and the journal
// says where to look.
func (g Guest) testWrongConfig(t *testing.T) {
	out := g.must(t, `cp -p /etc/agentlab/config.hcl /root/good.hcl
sed -i '3i agent_brigde = "vmbr7"' /etc/agentlab/config.hcl
systemctl reset-failed agentlabd
if systemctl restart agentlabd; then exit 1; fi
show ActiveState; show SubState; show ExecMainStatus; show NRestarts
journalctl -u agentlabd -n 20 -o cat --no-pager
cp -p /root/good.hcl /etc/agentlab/config.hcl
systemctl start agentlabd`)
	state, journal, _ := strings.Cut(out, "78\n0\n")
	if state != "failed\nfailed\n" {
		t.Errorf("the unit is not failed with 78 and left alone:\n%s", out)
	}
	for _, want := range []string{"/etc/agentlab/config.hcl:3", "agent_bridge", "hint: "} {
		if !strings.Contains(journal, want) {
			t.Errorf("the journal does not say %q:\n%s", want, journal)
		}
	}
}

// testWatchdog: systemd's patience is shortened, which alone ends nobody. Then
// somebody holds the database, and systemd ends the daemon that only waits.
func (g Guest) testWatchdog(t *testing.T) {
	g.must(t, `mkdir -p /run/systemd/system/agentlabd.service.d
printf '[Service]\nWatchdogSec=8\n' >/run/systemd/system/agentlabd.service.d/test.conf
systemctl daemon-reload
systemctl restart agentlabd
is 8s show WatchdogUSec
`+submit("sim:sleep=14s")+finish+`
is 0 show NRestarts
python3 -c '
import sqlite3, time
db = sqlite3.connect("/var/lib/agentlab/agentlab.db", isolation_level=None, timeout=10)
db.execute("BEGIN EXCLUSIVE")
open("/run/held", "w").close()
time.sleep(100)
' &
await 20 "the database is held" test -e /run/held
await 40 "systemd ends the daemon" is 1 show NRestarts
kill $!
await 60 "it runs again" is active show ActiveState
journalctl -u agentlabd -o cat --no-pager | grep -c 'Watchdog timeout'
rm -r /run/systemd/system/agentlabd.service.d
systemctl daemon-reload
systemctl restart agentlabd`)
	g.noDoubledEffect(t)
}

// AfterReboot expects the service to be up again and removes it.
func AfterReboot(t *testing.T, g Guest) {
	g.must(t, `await 60 "the service is up" is active show ActiveState
is 0 show NRestarts`)
	g.testSocket(t)
	g.must(t, submit("sim:print=again")+finish)
	g.must(t, "systemctl disable --now --quiet agentlabd")
}
