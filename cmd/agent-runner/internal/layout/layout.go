package layout

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Layout is a guest's file tree. Root is "/" in a guest and a directory in tests.
type Layout struct {
	Root    string
	touched *touched // nil: not lazy
}

// Lazily gives the layout whose Write leaves what it writes in the page cache. Who
// asks for it calls its Flush before anybody relies on the files.
func (l Layout) Lazily() Layout {
	l.touched = &touched{dirs: map[uint64]string{}}
	return l
}

// At gives the path of an absolute guest path under Root.
func (l Layout) At(path string) string { return filepath.Join(l.Root, path) }

// Bootstrap is what the seed left for the runner.
func (l Layout) Bootstrap() string { return l.At("/etc/agentlab/bootstrap.json") }

// Override is the operator's environment file for the runner.
func (l Layout) Override() string { return l.At("/etc/agentlab/agent-runner.env") }

// Credential is the sandbox's credential, on the guest's own disk.
func (l Layout) Credential() string { return l.At("/var/lib/agentlab/credential") }

// SeedState tells which seed was applied.
func (l Layout) SeedState() string { return l.At("/var/lib/agentlab/seed.json") }

// Journal tells how far the job is.
func (l Layout) Journal() string { return l.At("/var/lib/agentlab/job.json") }

// Spool is the job's redacted log.
func (l Layout) Spool() string { return l.At("/var/lib/agentlab/agent.log") }

// JobDir is the job's own directory. It is on disk, survives a reboot, and can
// be written from inside bubblewrap.
func (l Layout) JobDir(job string) string { return l.At("/var/tmp/agentlab-" + job) }

// Run is the runner's directory on tmpfs; Secrets is below it.
func (l Layout) Run() string { return l.At("/run/agentlab") }

// Secrets is where secrets are, on tmpfs.
func (l Layout) Secrets() string { return l.At("/run/agentlab/secrets") }

// HostKey is the ssh host key.
func (l Layout) HostKey() string { return l.At("/etc/ssh/ssh_host_ed25519_key") }

// TemplateMark is there while this guest is to become a memory template, and in a
// copy of one until its host lets it go. NamedMark is what it then holds. A reboot
// removes it.
func (l Layout) TemplateMark() string { return l.At("/run/agentlab/template") }

// NamedMark in the file TemplateMark says that the copy has all of its identity.
const NamedMark = "named"

// BootID gives the kernel's id of this boot, "" when it cannot be read.
func (l Layout) BootID() string {
	b, err := os.ReadFile(l.At("/proc/sys/kernel/random/boot_id"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Login is a user of the guest.
type Login struct {
	Name  string
	UID   uint32
	GID   uint32
	Home  string // as the guest sees it
	Shell string
}

// Login finds a user in the guest's own passwd file. fault.NotFound: no such
// user.
func (l Layout) Login(name string) (Login, error) {
	f, err := os.Open(l.At("/etc/passwd"))
	if err != nil {
		return Login{}, fault.New(fault.NotFound, "read users: %w", err)
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		field := strings.Split(sc.Text(), ":")
		if len(field) != 7 || field[0] != name {
			continue
		}
		uid, errUID := strconv.ParseUint(field[2], 10, 32)
		gid, errGID := strconv.ParseUint(field[3], 10, 32)
		if errUID != nil || errGID != nil {
			break
		}
		return Login{Name: name, UID: uint32(uid), GID: uint32(gid), Home: field[5], Shell: field[6]}, nil
	}
	return Login{}, fault.New(fault.NotFound, "this system has no user %q", name)
}
