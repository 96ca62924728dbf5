package config

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
)

// pluginSockets is the folder below run_dir in which plugins listen.
const pluginSockets = "p"

// PluginRunDir is the folder in which plugins listen.
func (c *Config) PluginRunDir() string { return filepath.Join(c.RunDir, pluginSockets) }

// ForeignOwner reports whether a file belongs to somebody who is neither root nor
// this process's user, and to whom.
func ForeignOwner(st fs.FileInfo) (uid uint32, foreign bool) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Uid == 0 || int(sys.Uid) == os.Geteuid() {
		return 0, false
	}
	return sys.Uid, true
}

func (c *checker) runDir(dir string) {
	c.absolute("run_dir", dir)
	if err := launch.CheckRunDir(filepath.Join(dir, pluginSockets)); err != nil {
		c.diags = c.diags.Fail(c.at("run_dir"), fault.HintOf(err), "run_dir: %v", err)
	}
}

// longestLink is the most bytes that Linux takes for the name of a link.
const longestLink = 15

func (c *checker) bridge(name string) {
	if name == "" || name == "." || name == ".." || len(name) > longestLink || strings.ContainsAny(name, "/: \t\n") {
		c.fail("agent_bridge", "%q is not the name of a link: at most %d bytes, without spaces, slashes and colons", name, longestLink)
	}
}

// last is the broadcast address of an IPv4 subnet.
func last(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}
