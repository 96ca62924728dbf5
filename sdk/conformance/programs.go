package conformance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// endTime is how long a program may take to its end after the call that ended it.
const endTime = 2 * time.Second

// behind is a hypervisor behind a process, whose programs can be looked at.
type behind struct {
	*hypervisor.Client
	process *launch.Process
}

// program is a process, told from a later one of the same number.
type program struct {
	pid, parent int
	name, began string
	over        bool // it ended, and nobody asked how
}

type programs []program

func (p programs) String() string {
	var names []string
	for _, one := range p {
		names = append(names, fmt.Sprintf("%s (process %d)", one.name, one.pid))
	}
	return strings.Join(names, ", ")
}

// running lists the processes of this host.
func running() (out programs) {
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range all {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		// pid (name) state ppid … starttime …; the name may have anything in it
		open, shut := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
		rest := strings.Fields(string(stat[shut+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || open < 0 || len(rest) < 20 {
			continue
		}
		parent, _ := strconv.Atoi(rest[1])
		out = append(out, program{pid: pid, parent: parent, name: string(stat[open+1 : shut]), began: rest[19], over: rest[0] == "Z"})
	}
	return out
}

// programsOf lists what the driver's process started and what still runs: its
// descendants, and what has left the family but inherited the certificate that no
// other process of a plugin was given. nil: there is no process.
func programsOf(d hypervisor.Driver) (out programs) {
	b, ok := d.(*behind)
	if !ok {
		return nil
	}
	all, own, mark := running(), b.process.PID(), certificateOf(b.process.PID())
	for _, p := range all {
		if p.pid != own && !p.over && (all.descends(p, own) || mark != nil && bytes.Equal(certificateOf(p.pid), mark)) {
			out = append(out, p)
		}
	}
	return out
}

// certificateOf is what a host gives each process of a plugin anew.
func certificateOf(pid int) []byte {
	env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	for _, one := range bytes.Split(env, []byte{0}) {
		if value, ok := bytes.CutPrefix(one, []byte("PLUGIN_CLIENT_CERT=")); ok {
			return value
		}
	}
	return nil
}

func (p programs) descends(one program, from int) bool {
	for range len(p) { // numbers may form a ring while they change
		if one.parent == from {
			return true
		}
		i := slices.IndexFunc(p, func(o program) bool { return o.pid == one.parent })
		if i < 0 {
			return false
		}
		one = p[i]
	}
	return false
}

// besides is p without what is in others.
func (p programs) besides(others programs) programs {
	return slices.DeleteFunc(slices.Clone(p), func(one program) bool { return others.has(one) })
}

func (p programs) has(one program) bool {
	return slices.ContainsFunc(p, func(o program) bool { return o.pid == one.pid && o.began == one.began })
}

// left is what of p still runs.
func (p programs) left() programs {
	if len(p) == 0 {
		return nil
	}
	now := slices.DeleteFunc(running(), func(one program) bool { return one.over })
	return slices.DeleteFunc(slices.Clone(p), func(one program) bool { return !now.has(one) })
}

// ended is left once they had a moment for their end.
func (p programs) ended() programs {
	for deadline := time.Now().Add(endTime); ; time.Sleep(20 * time.Millisecond) {
		if p = p.left(); len(p) == 0 || time.Now().After(deadline) {
			return p
		}
	}
}

// outlive fails for a program that goes on without its plugin when the plugin
// does not say that it starts such: a host confines what it does not expect.
func (p programs) outlive(says bool) error {
	if left := p.left(); len(left) > 0 && !says {
		return saw("%s outlives the plugin, whose Confinement does not say so: on a host it would have no capabilities and no network", left).
			want("plugin.Confinement{StartsWorkloads: true}")
	}
	return nil
}

// infoOf is what the plugin behind the driver says of itself; nothing without one.
func infoOf(ctx context.Context, d hypervisor.Driver) (plugin.Info, error) {
	b, ok := d.(*behind)
	if !ok {
		return plugin.Info{}, nil
	}
	info, err := plugin.NewClient(b.process.Conn()).Info(ctx, "")
	if err != nil {
		return info, fmt.Errorf("get info: %w", err)
	}
	return info, nil
}
