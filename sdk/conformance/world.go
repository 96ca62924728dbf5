package conformance

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// usage is what a process holds.
type usage struct {
	rss                    uint64
	fds, threads, children int
}

func (u usage) String() string {
	return fmt.Sprintf("%.1f MiB, %d descriptors, %d threads, %d children", float64(u.rss)/(1<<20), u.fds, u.threads, u.children)
}

func (u usage) grown(from usage) bool {
	return u.rss > from.rss+growthRSS || u.fds > from.fds+growthFew || u.threads > from.threads+growthFew || u.children > from.children
}

// measure reads what the kernel knows about a process.
func measure(pid int) (u usage, err error) {
	dir := fmt.Sprintf("/proc/%d", pid)
	statm, err := os.ReadFile(dir + "/statm")
	if err != nil {
		return u, fmt.Errorf("measure process %d: %w", pid, err)
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return u, fmt.Errorf("measure process %d: statm is %q", pid, statm)
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	if err != nil {
		return u, fmt.Errorf("measure process %d: %w", pid, err)
	}
	u.rss = pages * uint64(os.Getpagesize())
	for list, n := range map[string]*int{"fd": &u.fds, "task": &u.threads} {
		entries, err := os.ReadDir(dir + "/" + list)
		if err != nil {
			return u, fmt.Errorf("measure process %d: %w", pid, err)
		}
		*n = len(entries)
	}
	u.children = children(pid)
	return u, nil
}

// children counts the processes whose parent is pid.
func children(pid int) (n int) {
	for _, p := range running() {
		if p.parent == pid {
			n++
		}
	}
	return n
}

// standsStill reports whether every thread of a process is stopped.
func standsStill(pid int) bool {
	all, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range all {
		stat, err := os.ReadFile(path)
		if err == nil && !bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" T")) {
			return false
		}
	}
	return true
}

// without makes a PATH that has all that ours has, but for some programs.
func without(names []string) (search string, done func(), err error) {
	dir, err := os.MkdirTemp("", "conf-path")
	if err != nil {
		return "", nil, fmt.Errorf("make a PATH: %w", err)
	}
	for _, folder := range filepath.SplitList(os.Getenv("PATH")) {
		entries, _ := os.ReadDir(folder) // what is not there has nothing
		for _, e := range entries {
			if !slices.Contains(names, e.Name()) {
				_ = os.Symlink(filepath.Join(folder, e.Name()), filepath.Join(dir, e.Name())) // the first wins
			}
		}
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil
}

// hung is a PATH on which some programs never end.
type hung struct {
	search, mark string
	done         func()
}

// hanging makes it. The programs are known by the time that they would take, and
// found before those of the same names.
func hanging(names []string) (*hung, error) {
	dir, err := os.MkdirTemp("", "conf-path")
	if err != nil {
		return nil, fmt.Errorf("make a PATH: %w", err)
	}
	h := &hung{
		search: dir + string(filepath.ListSeparator) + os.Getenv("PATH"), mark: fmt.Sprintf("%d.%06d", 80_000, rand.IntN(1_000_000)),
		done: func() { _ = os.RemoveAll(dir) },
	}
	for _, name := range names {
		script := "#!/bin/sh\nexec sleep " + h.mark + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil { //nolint:gosec // it is to be run
			h.done()
			return nil, fmt.Errorf("make a tool that hangs: %w", err)
		}
	}
	return h, nil
}

// ended waits a moment for the programs to be ended.
func (h *hung) ended() error {
	for range 50 {
		if h.running() == 0 {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return saw("%d tools still run five seconds after the call was over", h.running()).want("none")
}

func (h *hung) running() (n int) {
	all, _ := os.ReadDir("/proc")
	for _, e := range all {
		if strings.Trim(e.Name(), "0123456789") != "" {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && bytes.Contains(line, []byte("sleep\x00"+h.mark)) {
			n++
		}
	}
	return n
}
