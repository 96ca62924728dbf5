package unit_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/internal/testkit"
)

// inScratch runs a script in namespaces of its own: what it changes in /etc,
// /usr and /var goes to memory, and its network is empty.
func inScratch(t *testing.T, script string) testkit.Result {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for namespaces")
	}
	const prepare = `set -eu
mount -t tmpfs scratch "$SCRATCH"
for dir in etc usr var; do
  mkdir -p "$SCRATCH/$dir/upper" "$SCRATCH/$dir/work"
  mount -t overlay scratch -o "lowerdir=/$dir,upperdir=$SCRATCH/$dir/upper,workdir=$SCRATCH/$dir/work" "/$dir"
done
mount -t tmpfs scratch /run
ip link set lo up
cd "$CHECKOUT"
`
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", prepare+script)
	cmd.Env = append(os.Environ(), "SCRATCH="+t.TempDir(), "CHECKOUT="+checkout(t))
	return testkit.Capture(cmd)
}

// checkout is a folder with what the installer needs of a checkout.
func checkout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	link := func(from, to string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, to)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(from, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	link(filepath.Dir(testkit.Bin(t, "agentlabd")), "bin")
	for _, name := range []string{"scripts", "packaging", "docs"} {
		link(filepath.Join(testkit.Root(t), name), name)
	}
	return dir
}

// TestFirstConfiguration: what the installer writes on a fresh machine is a
// daemon whose plugins are all ready.
func TestFirstConfiguration(t *testing.T) {
	for _, tool := range []string{"unshare", "ip", "nft", "conntrack", "age-keygen", "ssh-keygen", "systemctl", "qemu-system-x86_64"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	r := inScratch(t, `
rm -rf /etc/agentlab
scripts/install_host.sh
agentlabd >/run/daemon.log 2>&1 &
for _ in $(seq 100); do
  if agentlab plugin list --json >/run/plugins 2>/dev/null && ! grep -q '"starting"' /run/plugins; then break; fi
  sleep 0.1
done
python3 -c 'import json; [print(p["kind"], p["name"], p["state"], p.get("message", "")) for p in json.load(open("/run/plugins"))["plugins"]]'
cat /run/daemon.log >&2
`)
	const want = "hypervisor qemu ready \nnetwork netfilter ready \nsecrets secrets-age ready \n"
	if r.Code != 0 || r.Stdout != want {
		t.Errorf("exit %d\n%s%s\nwant:\n%s", r.Code, r.Stdout, r.Stderr, want)
	}
}

// TestInstallerRefuses: what it does not know or cannot do yet changes nothing.
func TestInstallerRefuses(t *testing.T) {
	tests := map[string]string{
		"--enable-remote-control": "--enable-remote-control is not there yet",
		"--control-token=secret":  "--control-token is not there yet",
		"--start":                 "unknown argument --start",
	}
	for arg, want := range tests {
		t.Run(arg, func(t *testing.T) {
			r := testkit.Capture(exec.Command(filepath.Join(testkit.Root(t), "scripts/install_host.sh"), arg))
			if r.Code == 0 || !strings.Contains(r.Stderr, want) || !strings.Contains(r.Stderr, "nothing was changed") {
				t.Errorf("exit %d, %q; want %q", r.Code, r.Stderr, want)
			}
			if strings.Contains(r.Stderr, "secret") {
				t.Errorf("it repeats the token: %q", r.Stderr)
			}
		})
	}
}
