package badinput_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/internal/testkit"
)

// TestStart: a daemon that cannot work does not start, and says at which line or
// file it is and what to do. What it did make by then it takes away again.
func TestStart(t *testing.T) {
	t.Parallel()
	type start struct {
		name  string
		spoil func(b *bed) // the configuration or what it needs
		says  string       // $C is the configuration, $D the directory
		hint  string
	}
	add := func(line string) func(b *bed) {
		return func(b *bed) { b.WriteConfig(b.t, line+"\n"+b.Config(b.Plugins())) }
	}
	replace := func(key, value string) func(b *bed) {
		return func(b *bed) {
			var out []string
			for line := range strings.Lines(b.Config(b.Plugins())) {
				if !strings.HasPrefix(line, key+" ") {
					out = append(out, line)
				}
			}
			b.WriteConfig(b.t, fmt.Sprintf("%s = %q\n%s", key, value, strings.Join(out, "")))
		}
	}
	mode := func(m os.FileMode) func(b *bed) { return func(b *bed) { b.chmod(b.ConfigFile(), m) } }
	for _, tc := range []start{
		{"misspelled key", add(`secrets_bundel = "x"`), "$C:1: unknown key \"secrets_bundel\"", `did you mean "secrets_bundle"?`},
		{"misspelled key and wrong value", add("log_max_bytes = 0\nsecrets_bundel = \"x\""), "$C:1: log_max_bytes", `did you mean "secrets_bundle"?`},
		{"misspelled block", add("plugn \"secrets\" \"x\" {}"), "$C:1: ", `did you mean "plugin"?`},
		{"no file", func(b *bed) { _ = os.Remove(b.ConfigFile()) }, "$C: no such file", "create it"},
		{"YAML form", func(b *bed) { _ = os.Rename(b.ConfigFile(), b.path("config.yaml")) }, "$C: no such file", "agentlab config convert -w $D/config.yaml"},
		{"readable by everybody", mode(0o644), "$C: mode 0644 lets others read or change it", "chmod 0600 $C"},
		{"writable by the group", mode(0o660), "$C: mode 0660 lets others read or change it", "chmod 0600 $C"},
		{"another's file", func(b *bed) { b.chown(b.ConfigFile()) }, "$C: belongs to uid 65534, who may change it", "chown root $C"},
		{"guest port 0", replace("guest_listen", "127.77.1.1:0"), "", ""},
		{"relative log", replace("log_file", "agentlabd.log"), "$C:1: log_file: ", "absolute path"},
		{"long run directory", replace("run_dir", "/tmp/"+strings.Repeat("long/", 20)), "$C:1: run_dir: ", "choose a shorter run_dir"},
		{"data directory of something else", func(b *bed) { b.put("data/precious", "", 0o600) }, `data_dir = "$D/data" holds something else`, "a directory of its own"},
		{"database that is none", func(b *bed) {
			b.put("data/agentlabd.lock", "", 0o600)
			b.put("data/agentlab.db", strings.Repeat("no database ", 1000), 0o600)
		}, "$D/data/agentlab.db", "backup"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBed(t)
			if tc.says == "" { // the subnet is the bed's own
				first := b.Guests.Addr().String()
				replace("guest_listen", first+":0")(b)
				tc.says, tc.hint = "$C:1: guest_listen: port 0", "write "+first+":8844"
			} else {
				tc.spoil(b)
			}
			b.notStarted(tc.says, tc.hint)
		})
	}
}

func (b *bed) chmod(path string, mode os.FileMode) {
	b.t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) chown(path string) {
	b.t.Helper()
	if err := os.Chown(path, nobody, nobody); err != nil {
		b.t.Fatal(err)
	}
}

// notStarted wants the daemon to end at once with the words, and neither a
// process nor a socket of it.
func (b *bed) notStarted(says, hint string) {
	b.t.Helper()
	fill := strings.NewReplacer("$C", b.ConfigFile(), "$D", b.Dir).Replace
	r := testkit.Capture(b.Daemon())
	code := 1
	if strings.HasPrefix(says, "$C") {
		code = 78 // EX_CONFIG of sysexits(3) keeps systemd from trying again
	}
	if r.Code != code || !strings.HasPrefix(r.Stderr, "agentlabd: ") || strings.Contains(r.Stderr, "goroutine ") {
		b.t.Errorf("exit %d, want %d:\n%s", r.Code, code, r.Stderr)
	}
	for _, want := range []string{fill(says), fill(hint)} {
		if !strings.Contains(r.Stderr, want) {
			b.t.Errorf("not said: %q in\n%s", want, r.Stderr)
		}
	}
	if pids := b.PluginPIDs(); len(pids) > 0 {
		b.t.Errorf("plugins %v run", pids)
	}
	if _, err := os.Lstat(b.Socket()); err == nil {
		b.t.Errorf("%s is left", b.Socket())
	}
}

// TestPortTaken: another program has the guests' port.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	ln, err := net.Listen("tcp", b.Guests.String())
	if err != nil {
		t.Fatal(err)
	}
	b.notStarted(b.Guests.String()+": another program has this port", fmt.Sprintf("ss -ltnp 'sport = :%d'", b.Guests.Port()))
	_ = ln.Close()
	b.Start(t) // and nothing of the failed start is in the way
}

// TestSocket: what the command line says of a daemon that it does not reach.
func TestSocket(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	said := func(r testkit.Result, code int, says, hint string) {
		t.Helper()
		if r.Code != code || !strings.Contains(r.Stderr, "error: "+says) || !strings.Contains(r.Stderr, "hint: "+hint) {
			t.Errorf("exit %d, want %d, %q and %q:\n%s", r.Code, code, says, hint, r.Stderr)
		}
	}
	said(b.Run("status"), 6, "the daemon is not running: there is no "+b.Socket(), "start the daemon whose run_dir is "+filepath.Dir(b.Socket()))
	b.Start(t)
	said(b.asNobody("agentlab", "--socket", b.Socket(), "status"), 4, "no permission to use "+b.Socket(), "")
	if r := b.asNobody("agentlabd", "--config", b.ConfigFile()); r.Code == 0 || !strings.Contains(r.Stderr, b.ConfigFile()+": cannot be read: permission denied; root may read it") {
		t.Errorf("a daemon of nobody's: exit %d\n%s", r.Code, r.Stderr)
	}
	second := testkit.Capture(b.Daemon())
	if want := fmt.Sprintf("another agentlabd uses %s\nhint: it is process %d;", filepath.Join(b.Dir, "data"), b.PID()); second.Code != 1 || !strings.Contains(second.Stderr, want) {
		t.Errorf("a second daemon: exit %d, want %q:\n%s", second.Code, want, second.Stderr)
	}
	b.Kill()
	said(b.Run("status"), 6, "the daemon is not running: nobody listens at "+b.Socket(), "start the daemon whose run_dir is "+filepath.Dir(b.Socket()))
	b.Start(t) // over the stale socket
	if r := b.Run("status"); r.Code != 0 {
		t.Errorf("status: exit %d\n%s", r.Code, r.Stderr)
	}
}
