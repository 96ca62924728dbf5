package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
)

// lockName is the file that a daemon keeps locked, and by which it knows its
// directories again.
const lockName = "agentlabd.lock"

const databaseName = "agentlab.db" // in the data directory

// layout knows where the daemon keeps what.
type layout struct {
	cfg *config.Config
	dev bool // whoever called sudo may use the socket
}

func (l layout) database() string    { return filepath.Join(l.cfg.DataDir, databaseName) }
func (l layout) artifacts() string   { return filepath.Join(l.cfg.DataDir, "artifacts") }
func (l layout) repos() string       { return filepath.Join(l.cfg.DataDir, "repos") }
func (l layout) pluginState() string { return filepath.Join(l.cfg.DataDir, "plugins") }
func (l layout) pluginRun() string   { return l.cfg.PluginRunDir() }
func (l layout) socket() string      { return filepath.Join(l.cfg.RunDir, "agentlabd.sock") }

// make creates the directories. The data directory and the plugins' may be
// passed through by anybody, so that a QEMU with a uid of its own reaches the
// files of its VM; nobody but root lists or reads them.
func (l layout) make() error {
	if err := errors.Join(takeDir(l.cfg.DataDir, "data_dir"), takeDir(l.cfg.RunDir, "run_dir")); err != nil {
		return err
	}
	for dir, mode := range map[string]fs.FileMode{
		l.cfg.DataDir: 0o711, l.pluginState(): 0o711, l.artifacts(): 0o700, l.repos(): 0o700,
	} {
		if err := mkdir(dir, mode); err != nil {
			return err
		}
	}
	if err := l.makeRunDir(); err != nil {
		return err
	}
	return mkdir(l.pluginRun(), 0o700)
}

// makeRunDir lets those through who may use the socket: root and the group
// agentlab. systemd makes the directory too, but knows no group for it.
func (l layout) makeRunDir() error {
	if l.dev {
		return mkdir(l.cfg.RunDir, 0o755)
	}
	if err := mkdir(l.cfg.RunDir, 0o750); err != nil {
		return err
	}
	if err := os.Chown(l.cfg.RunDir, 0, groupID()); err != nil {
		return fault.New(fault.Denied, "give %s to its group: %w", l.cfg.RunDir, err).WithHint("agentlabd needs root")
	}
	return nil
}

// groupID is that of the group agentlab, root's where there is no such group.
func groupID() int {
	g, err := user.LookupGroup("agentlab")
	if err != nil {
		return 0
	}
	id, err := strconv.Atoi(g.Gid)
	if err != nil {
		return 0
	}
	return id
}

// takeDir makes a directory or takes one that is empty, was ours or comes from
// systemd: its mode is set and things in it are removed, which must not happen
// to /tmp.
func takeDir(dir, key string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fault.New(fault.Denied, "create %s: %w", dir, err).WithHint("agentlabd needs root")
	}
	if err := safeDir(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.New(fault.Denied, "look into %s: %w", dir, err)
	}
	ours := func(e fs.DirEntry) bool { return e.Name() == lockName || e.Name() == markName }
	given := slices.Concat(filepath.SplitList(os.Getenv("STATE_DIRECTORY")), filepath.SplitList(os.Getenv("RUNTIME_DIRECTORY")))
	if len(entries) > 0 && !slices.ContainsFunc(entries, ours) && !slices.Contains(given, dir) {
		return fault.New(fault.Exists, "%s = %q holds something else", key, dir).
			WithHint("give the daemon a directory of its own, empty at its first start")
	}
	return nil
}

func mkdir(dir string, mode fs.FileMode) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return fault.New(fault.Denied, "create %s: %w", dir, err).WithHint("agentlabd needs root")
	}
	if err := os.Chmod(dir, mode); err != nil {
		return fault.New(fault.Denied, "set the mode of %s: %w", dir, err).WithHint("agentlabd needs root")
	}
	return nil
}

// lock keeps a second daemon from the same data and from the same sockets. The
// kernel frees both when this process ends, however it ends.
func (l layout) lock() (release func(), err error) {
	// Whoever has the data directory may have another run directory.
	data, err := lockDir(l.cfg.DataDir, "end it, or give this one a data_dir of its own")
	if err != nil {
		return nil, err
	}
	run, err := lockDir(l.cfg.RunDir, "talk to it with agentlab --socket "+l.socket()+" status")
	if err != nil {
		data()
		return nil, err
	}
	return func() { run(); data() }, nil
}

func lockDir(dir, how string) (release func(), err error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fault.New(fault.Denied, "open the lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path)
		_ = f.Close()
		return nil, fault.New(fault.Locked, "another agentlabd uses %s", dir).WithHolder("process "+string(holder)).
			WithHint("it is process %s; %s", holder, how)
	}
	err = errors.Join(f.Truncate(0), writePID(f))
	if err != nil {
		_ = f.Close()
		return nil, fault.New(fault.Internal, "write the lock: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// lockHolder is the process that has the directory, "" for nobody.
func lockHolder(dir string) string {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return ""
	}
	text, _ := io.ReadAll(f)
	return cmp.Or(string(text), "unknown")
}

// clear removes the sockets of plugins whose daemon was killed. We hold the
// lock, so they are nobody's.
func (l layout) clear() error { return launch.CleanRunDir(l.pluginRun()) }

func writePID(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	return err
}

// listen opens the control socket for root and the group agentlab, and in a dev
// daemon for whoever called sudo. We hold the lock, so a socket that is there
// already belongs to nobody.
func (l layout) listen() (net.Listener, error) {
	path := l.socket()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Denied, "remove the old socket: %w", err)
	}
	old := unix.Umask(0o177)
	ln, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "listen on %s: %w", path, err)
	}
	uid := 0
	if l.dev {
		uid, _ = invoker() // not their group: it may be everybody's
	}
	if err := errors.Join(os.Chown(path, uid, groupID()), os.Chmod(path, 0o660)); err != nil {
		_ = ln.Close()
		return nil, fault.New(fault.Denied, "set who may use %s: %w", path, err)
	}
	return ln, nil
}

// artifactJobs names the jobs that have a directory of artifacts.
func (l layout) artifactJobs(context.Context) ([]string, error) {
	entries, err := os.ReadDir(l.artifacts())
	if err != nil {
		return nil, fault.New(fault.Internal, "list the artifacts: %w", err)
	}
	var jobs []string
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "job_") {
			jobs = append(jobs, e.Name())
		}
	}
	return jobs, nil
}

// cleanArtifacts removes all files of a job; gone is success.
func (l layout) cleanArtifacts(_ context.Context, jobID string) error {
	root, err := os.OpenRoot(l.artifacts())
	if err != nil {
		return fault.New(fault.Internal, "open the artifacts: %w", err)
	}
	defer func() { _ = root.Close() }()
	if err := root.RemoveAll(jobID); err != nil {
		return fault.New(fault.Internal, "remove artifacts of %s: %w", jobID, err)
	}
	return nil
}

// cleanRepo removes an uploaded repository; gone is success.
func (l layout) cleanRepo(_ context.Context, id string) error {
	root, err := os.OpenRoot(l.repos())
	if err != nil {
		return fault.New(fault.Internal, "open the repositories: %w", err)
	}
	defer func() { _ = root.Close() }()
	if err := root.Remove(id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Internal, "remove repository %s: %w", id, err)
	}
	return nil
}
