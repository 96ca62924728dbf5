package launch

import (
	"errors"
	"hash/fnv"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Users of plugins that ask for plugin.NoUser. No account has these numbers, and
// neither the ids delegated to accounts nor those of systemd's containers reach
// them.
const (
	firstUser = 1_880_000_000
	userCount = 10_000_000
)

// Grant is what a plugin's process may do to the system. The zero Grant is all
// that the host may.
type Grant struct {
	Confined     bool
	UID, GID     int      // 0 is root, with no more than Capabilities
	Capabilities []string // all that it and its children can ever have
	Network      bool     // false: a network namespace with nothing in it
	Why          string   // what the plugin has beyond its wish; "" for nothing
	RootFor      string   // the device for which it is root, though it asks for another user
}

// GrantOf gives what the plugin asks for, and nothing else. owner is what the
// user of a plugin without one of its own is made from: a path that stays, such
// as its state folder. A host that is not root has nothing to take away, but its
// plugins cannot gain anything either.
func GrantOf(asks plugin.Confinement, owner string) (Grant, error) {
	if asks.StartsWorkloads {
		return Grant{Why: "what it starts outlives it and would inherit every limit"}, nil
	}
	if euid := os.Geteuid(); euid != 0 {
		return Grant{Confined: true, UID: euid, GID: os.Getegid(), Network: true}, nil
	}
	g := Grant{Confined: true, Capabilities: slices.Sorted(slices.Values(asks.Capabilities)), Network: asks.Network}
	if _, err := g.capabilities(); err != nil {
		return Grant{}, err
	}
	for _, path := range asks.Devices {
		open, err := forAll(path)
		if err != nil {
			return Grant{}, err
		}
		if asks.User != "" && !open {
			g.Why, g.RootFor = "it is root, for nobody else may open "+path, path
		}
	}
	if g.RootFor != "" {
		return g, nil
	}
	switch asks.User {
	case "":
	case plugin.NoUser:
		h := fnv.New32a()
		_, _ = h.Write([]byte(owner))
		g.UID = firstUser + int(h.Sum32()%userCount)
		g.GID = g.UID
	default:
		u, err := user.Lookup(asks.User)
		if err != nil {
			return Grant{}, fault.New(fault.Precondition, "the plugin asks for the user %q: %w", asks.User, err).
				WithHint("make it: adduser --system --group %s", asks.User)
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return Grant{}, fault.New(fault.Internal, "user %q: %w", asks.User, err)
		}
		g.UID, g.GID = uid, gid
	}
	return g, nil
}

// forAll reports whether any user may open the device, or it is not there: then
// being root does not help. Only for what is a device may a plugin become root.
func forAll(path string) (bool, error) {
	notOne := fault.New(fault.Unsupported, "the plugin asks for %q, which is no device below /dev", path)
	if path != filepath.Clean(path) || !strings.HasPrefix(path, "/dev/") {
		return false, notOne
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, fault.New(fault.Unsupported, "look at a device that the plugin asks for: %w", err)
	case info.Mode()&fs.ModeDevice == 0:
		return false, notOne
	}
	return info.Mode().Perm()&0o006 == 0o006, nil
}

// capabilities gives the numbers of the capabilities.
func (g Grant) capabilities() ([]uintptr, error) {
	var out []uintptr
	for _, name := range g.Capabilities {
		n := slices.Index(capabilityNames, name)
		if n < 0 {
			return nil, fault.New(fault.Unsupported, "the plugin asks for %q, which is no capability of Linux", name)
		}
		out = append(out, uintptr(n))
	}
	return out, nil
}

// attributes adds what is done to the process itself.
func (g Grant) attributes(attr *syscall.SysProcAttr) error {
	if !g.Confined || os.Geteuid() != 0 {
		return nil
	}
	if !g.Network {
		attr.Cloneflags |= unix.CLONE_NEWNET
	}
	if g.UID == 0 {
		return nil // root has what the bounding set leaves
	}
	caps, err := g.capabilities()
	if err != nil {
		return err
	}
	attr.Credential = &syscall.Credential{Uid: uint32(g.UID), Gid: uint32(g.GID)}
	attr.AmbientCaps = caps
	return nil
}

// bind takes from this thread, for good, what the process that is forked from it
// must not have. The thread must not be used for anything else afterwards.
func (g Grant) bind() error {
	if !g.Confined {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fault.New(fault.Unsupported, "set no_new_privs: %w", err)
	}
	if os.Geteuid() != 0 {
		return nil
	}
	keep, err := g.capabilities()
	if err != nil {
		return err
	}
	if err := cutBounding(keep); err != nil {
		return err
	}
	return clearInherited()
}

// cutBounding leaves the thread's bounding set with these capabilities.
func cutBounding(keep []uintptr) error {
	for c := range uintptr(64) {
		if slices.Contains(keep, c) {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // past the last that this kernel has
		}
		if err != nil {
			return fault.New(fault.Denied, "take %s away: %w", capabilityName(c), err)
		}
	}
	return nil
}

// clearInherited empties the thread's inheritable and ambient sets, which pass
// over exec what the bounding set no longer has. The fork fills them again with
// what attributes says.
func clearInherited() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fault.New(fault.Denied, "clear ambient capabilities: %w", err)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // 32 capabilities each
	err := unix.Capget(&head, &data[0])
	if err == nil {
		data[0].Inheritable, data[1].Inheritable = 0, 0
		err = unix.Capset(&head, &data[0])
	}
	if err != nil {
		return fault.New(fault.Denied, "clear inheritable capabilities: %w", err)
	}
	return nil
}

func capabilityName(c uintptr) string {
	if c < uintptr(len(capabilityNames)) {
		return capabilityNames[c]
	}
	return "capability " + strconv.Itoa(int(c))
}

// capabilityNames are those of Linux, in the order of their numbers.
var capabilityNames = strings.Fields(`
CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID
CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER
CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE
CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP
CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF
CAP_CHECKPOINT_RESTORE`)

// userWord begins the word for an account.
const userWord = "user:"

// Words are what a plugin asks for and would get, one by one, as a block may
// allow it: capabilities, "root" for the host's own user or whenever it would be
// root, "user:NAME" for another account, "network" and "workloads". g is what
// GrantOf gives for it.
func Words(asks plugin.Confinement, g Grant) []string {
	out := slices.Sorted(slices.Values(asks.Capabilities))
	switch {
	case asks.User == "" || asks.User == "root" || g.Confined && g.UID == 0:
		out = append(out, "root")
	case asks.User != plugin.NoUser:
		out = append(out, userWord+asks.User)
	}
	if asks.Network {
		out = append(out, "network")
	}
	if asks.StartsWorkloads {
		out = append(out, "workloads")
	}
	return out
}

// IsWord reports whether Words may give the word.
func IsWord(word string) bool {
	if name, ok := strings.CutPrefix(word, userWord); ok {
		return name != "" && name != "root" && name != plugin.NoUser
	}
	return slices.Contains(capabilityNames, word) || word == "root" || word == "network" || word == "workloads"
}
