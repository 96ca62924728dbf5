package unit_test

import (
	"strings"
	"testing"
)

// install brings the service into the guest with the installer. The guest keeps it.
func install(t *testing.T, g guest) {
	g.bring(t)
	if !t.Run("install", g.testInstall) {
		t.FailNow()
	}
	t.Run("unit and socket", g.testUnit)
}

// live does to an installed service what happens to services.
func live(t *testing.T, g guest) {
	g.must(t, "mkdir -p "+dropIn+`
printf '[Service]\nWatchdogSec=15\n' >`+dropIn+`/test.conf
systemctl daemon-reload`)
	t.Run("reload", g.testReload)
	t.Run("restart", g.testRestart)
	t.Run("killed", g.testKilled)
	t.Run("wrong configuration", g.testWrongConfig)
	t.Run("watchdog", g.testWatchdog)
}

// dropIn shortens systemd's patience from the restart on, so that what follows
// shows that a daemon that works, starts and idles keeps it.
const dropIn = "/run/systemd/system/agentlabd.service.d"

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

const installer = "/opt/agentlab/checkout/scripts/install_host.sh"

// testInstall: a first run makes what is missing and starts nothing when asked
// so; the next keeps what the operator wrote, one without news does nothing, and
// one with news restarts the daemon.
func (g guest) testInstall(t *testing.T) {
	g.want(t, installer+` --no-start >&2
stat -c '%a %U:%G %n' /usr/local/bin/agentlabd /usr/lib/agentlab/plugins /etc/agentlab /etc/agentlab/config.hcl \
  /etc/agentlab/keys /etc/agentlab/keys/agentlab_id_ed25519 /etc/agentlab/secrets /etc/systemd/system/agentlabd.service
getent group agentlab | cut -d: -f1
ls /usr/lib/agentlab/plugins
systemctl is-enabled agentlabd || true
systemctl is-active agentlabd || true
`, `755 root:root /usr/local/bin/agentlabd
755 root:root /usr/lib/agentlab/plugins
755 root:root /etc/agentlab
600 root:root /etc/agentlab/config.hcl
700 root:root /etc/agentlab/keys
600 root:root /etc/agentlab/keys/agentlab_id_ed25519
700 root:root /etc/agentlab/secrets
644 root:root /etc/systemd/system/agentlabd.service
agentlab
disabled
inactive
`)
	g.want(t, `cat >/etc/agentlab/config.hcl <<'END'
`+configuration+`END
echo 'profile "sim" { template = "debian-12" }' >/etc/agentlab/profiles/sim.hcl
sha256sum /etc/agentlab/config.hcl /etc/agentlab/keys/* >/run/written
`+installer+` 2>&1
sha256sum --quiet -c /run/written
systemctl is-active agentlabd
systemctl is-enabled agentlabd
first=$(show MainPID)
`+installer+` 2>&1
is "$first" show MainPID
echo >>/opt/agentlab/checkout/packaging/systemd/agentlabd.service
`+installer+` 2>&1
not is "$first" show MainPID
`, `agentlabd runs; see agentlab status
active
enabled
agentlabd runs; see agentlab status
installed /etc/systemd/system/agentlabd.service
agentlabd runs; see agentlab status
`)
}

// testUnit: the unit is what systemd accepts and comes with the machine; it is
// started when the daemon answers; and only root and the group reach it.
func (g guest) testUnit(t *testing.T) {
	g.want(t, `systemd-analyze verify agentlabd.service 2>&1
systemctl list-dependencies --plain multi-user.target | grep -o agentlabd.service
systemctl show agentlabd -p Type -p NotifyAccess -p WatchdogUSec -p StatusText | sort
`+socket, `agentlabd.service
NotifyAccess=main
StatusText=serving; hypervisor sim ready, network sim ready
Type=notify
WatchdogUSec=1min
`+socketWant)
}

const (
	socket = `stat -c '%a %U:%G' /run/agentlab /run/agentlab/agentlabd.sock /var/lib/agentlab /var/log/agentlab
export HOME=/
setpriv --reuid 65534 --regid agentlab --clear-groups agentlab status >/dev/null && echo "the group may"
setpriv --reuid 65534 --regid 65534 --clear-groups agentlab status 2>&1 | grep -o 'join the group'
`
	socketWant = `750 root:agentlab
660 root:agentlab
711 root:root
750 root:root
the group may
join the group
`
)

// testReload: the process stays; what is wrong is told where people look, and
// what is right is taken over.
func (g guest) testReload(t *testing.T) {
	g.must(t, `old=$(show MainPID)
cp -p /etc/agentlab/config.hcl /root/good.hcl
echo 'agent_brigde = "vmbr7"' >>/etc/agentlab/config.hcl
systemctl reload agentlabd
await 20 "the mistake is told" eval 'show StatusText | grep -q "not taken over"'
cp -p /root/good.hcl /etc/agentlab/config.hcl
systemctl reload agentlabd
await 20 "the file is taken over" is "Configuration reloaded." show StatusText
is "$old" show MainPID
is active show ActiveState
journalctl -u agentlabd -o cat | grep -q 'not taken over.*config.hcl:[0-9]*: unknown key'`)
}

// testRestart: a job and whoever follows it go on, and so does a program that
// left the unit's group as VMs do; one that did not ends with the daemon. The
// end is an orderly one: no plugin ends while the daemon may need it.
func (g guest) testRestart(t *testing.T) {
	g.unpack(t, "/opt/agentlab", []source{{scopeTest(t), "scope.test"}})
	g.life(t, `submit sim:sleep=12s
group=/sys/fs/cgroup$(show ControlGroup)/cgroup.procs
for name in child vm; do
  setsid -f sh -c "echo \$\$ >$group; echo \$\$ >/run/$name.pid; exec sleep 1000"
  await 5 "$name began" test -s /run/$name.pid
done
child=/proc/$(cat /run/child.pid)/cgroup vm=/proc/$(cat /run/vm.pid)/cgroup
grep -q agentlabd.service $child && grep -q agentlabd.service $vm
SCOPE_PID=$(cat /run/vm.pid) /opt/agentlab/scope.test -test.run '^TestScope$' -test.v | grep -q -- '--- PASS'
old=$(show MainPID)
systemctl restart agentlabd
not is "$old" show MainPID
grep -q agentlab-vm-1042-1900001042.scope $vm
not test -e $child
kill $(cat /run/vm.pid)
is 0 show NRestarts
not grep -e 'plugin is down' <(journalctl -u agentlabd -o cat _PID="$old")
finish`)
}

// testKilled: systemd starts a killed daemon again, nothing of the old one is
// left, and its job goes on.
func (g guest) testKilled(t *testing.T) {
	g.life(t, `systemctl reset-failed agentlabd
submit sim:sleep=10s
old=$(show MainPID) plugins=$(pgrep agentlab-plugin)
kill -9 "$old"
await 60 "systemd starts it again" is 1 show NRestarts
await 240 "it is ready" is active show ActiveState
not is "$old" show MainPID
for pid in $plugins; do not test -e /proc/$pid; done
finish`)
}

// testWrongConfig: systemd does not try again what cannot work, and the journal
// says where to look.
func (g guest) testWrongConfig(t *testing.T) {
	out := g.must(t, `cp -p /etc/agentlab/config.hcl /root/good.hcl
sed -i '3i agent_brigde = "vmbr7"' /etc/agentlab/config.hcl
systemctl reset-failed agentlabd
if systemctl restart agentlabd 2>/dev/null; then exit 1; fi
for what in ActiveState SubState ExecMainStatus NRestarts; do show $what; done
journalctl -u agentlabd -n 20 -o cat
cp -p /root/good.hcl /etc/agentlab/config.hcl
systemctl start agentlabd`)
	journal, alone := strings.CutPrefix(out, "failed\nfailed\n78\n0\n")
	if !alone {
		t.Errorf("the unit is not failed with 78 and left alone:\n%s", out)
	}
	for _, want := range []string{"/etc/agentlab/config.hcl:3", "agent_bridge", "hint: "} {
		if !strings.Contains(journal, want) {
			t.Errorf("the journal does not say %q:\n%s", want, journal)
		}
	}
}

// testWatchdog: somebody holds the database, and systemd ends the daemon that
// can only wait. With the database free again, it runs again.
func (g guest) testWatchdog(t *testing.T) {
	g.must(t, `is 15s show WatchdogUSec
is 0 show NRestarts
python3 -c '
import sqlite3, time
db = sqlite3.connect("/var/lib/agentlab/agentlab.db", isolation_level=None, timeout=10)
db.execute("BEGIN EXCLUSIVE")
open("/run/held", "w").close()
time.sleep(400)
' &
await 20 "the database is held" test -e /run/held
await 180 "systemd ends the daemon" not is 0 show NRestarts
kill $!
await 240 "it runs again" is active show ActiveState
journalctl -u agentlabd -o cat | grep -q 'Watchdog timeout (limit 15s)'
rm -r `+dropIn+`
systemctl daemon-reload`)
}

// afterReboot expects that the service came up with the machine, and ends it.
func afterReboot(t *testing.T, g guest) {
	g.want(t, `await 240 "the service is up" is active show ActiveState
show NRestarts
`+socket, "0\n"+socketWant)
	g.life(t, "submit sim:sleep=1s; finish; systemctl disable --now --quiet agentlabd")
}
