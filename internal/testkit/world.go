package testkit

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// World is what can be seen of this machine from outside AgentLab: the ends
// of the comparison "nothing is left".
type World struct {
	Processes []string // names of AgentLab's and QEMU's, by executable
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
	w := World{Processes: processes(), Links: links(t, pin), Ruleset: ruleset(t, pin)}
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

func processes() []string {
	var out []string
	links, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, l := range links {
		exe, err := os.Readlink(l)
		if err != nil {
			continue
		}
		name := filepath.Base(exe)
		if strings.HasPrefix(name, "agentlab") || strings.HasPrefix(name, "qemu-system") {
			out = append(out, name)
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
