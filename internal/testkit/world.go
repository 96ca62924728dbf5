package testkit

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// World is what can be seen of this machine from outside AgentLab: the ends
// of the comparison "nothing is left".
type World struct {
	Processes []string // names of what runs in the namespace, by executable
	Links     []string
	Ruleset   []string
	Files     []string // below the given roots
	Sysctls   []string
	Resolv    string
}

// Observe looks at the world. With pin it looks inside that network namespace.
// Paths matching ignore are left out.
func Observe(t testing.TB, pin string, ignore *regexp.Regexp, roots ...string) World {
	t.Helper()
	w := World{Links: links(t, pin), Ruleset: ruleset(t, pin)}
	if pin != "" {
		w.Processes = Processes(Namespace(t, pin))
	}
	for _, root := range roots {
		w.Files = append(w.Files, files(root, ignore)...)
	}
	for _, name := range []string{"ipv4/ip_forward", "ipv4/conf/all/rp_filter", "ipv6/conf/all/forwarding", "ipv6/conf/all/disable_ipv6"} {
		b, _ := os.ReadFile("/proc/sys/net/" + name)
		w.Sysctls = append(w.Sysctls, name+"="+strings.TrimSpace(string(b)))
	}
	b, _ := os.ReadFile("/etc/resolv.conf")
	w.Resolv = string(b)
	return w
}

// Namespace is the identity of the network namespace pinned at pin, as links
// below /proc name it.
func Namespace(t testing.TB, pin string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(pin, &st); err != nil {
		t.Fatalf("look at %s: %v", pin, err)
	}
	return fmt.Sprintf("net:[%d]", st.Ino)
}

// Processes names the executables that run in a namespace, sorted.
func Processes(namespace string) []string {
	var out []string
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, l := range links {
		if ns, err := os.Readlink(l); err != nil || ns != namespace {
			continue
		}
		if exe, err := os.Readlink(filepath.Join(filepath.Dir(filepath.Dir(l)), "exe")); err == nil {
			out = append(out, filepath.Base(exe))
		}
	}
	slices.Sort(out)
	return out
}

// inside prefixes a command so that it runs in the namespace.
func inside(pin string, argv ...string) *exec.Cmd {
	if pin != "" {
		argv = append([]string{"nsenter", "--net=" + pin, "--"}, argv...)
	}
	return exec.Command(argv[0], argv[1:]...)
}

// Inside runs a command in the daemon's namespace.
func (d *Daemon) Inside(argv ...string) Result { return Capture(inside(d.Pin(), argv...)) }

func links(t testing.TB, pin string) []string {
	t.Helper()
	out, err := inside(pin, "ip", "-j", "link").Output()
	if err != nil {
		t.Fatalf("ip -j link: %v", err)
	}
	var all []struct {
		Name  string   `json:"ifname"`
		Flags []string `json:"flags"`
	}
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatalf("ip -j link: %v", err)
	}
	var names []string
	for _, l := range all {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	return names
}

var counters = regexp.MustCompile(`"(packets|bytes|handle)": ?\d+`)

// ruleset gives one line per object of the ruleset, without counters.
func ruleset(t testing.TB, pin string) []string {
	t.Helper()
	out, err := inside(pin, "nft", "-j", "list", "ruleset").Output()
	if err != nil {
		t.Fatalf("nft list ruleset: %v", err)
	}
	var doc struct {
		Nftables []json.RawMessage `json:"nftables"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatalf("nft list ruleset: %v", err)
	}
	var lines []string
	for _, o := range doc.Nftables {
		lines = append(lines, counters.ReplaceAllString(string(o), ""))
	}
	slices.Sort(lines)
	return lines
}

func files(root string, ignore *regexp.Regexp) []string {
	var out []string
	_ = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && (ignore == nil || !ignore.MatchString(path)) {
			out = append(out, path)
		}
		return nil
	})
	return out
}
