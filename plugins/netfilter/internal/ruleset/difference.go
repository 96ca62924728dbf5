package ruleset

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/policy"
)

// Difference is one way in which the kernel's tables are not what they should
// be. Sandbox is "" for what concerns every sandbox.
type Difference struct {
	Sandbox string
	Text    string // for people
}

// Differences compares the kernel's tables with the wanted ones.
func Differences(current, wanted []Table, policies []policy.Policy) []Difference {
	d := differ{policies: policies}
	for _, w := range wanted {
		c, ok := find(current, w.Family)
		if !ok {
			d.report("", "table %s is missing", w.ref())
			continue
		}
		if !sameSkeleton(c, w) {
			d.report("", "sets or base chains of table %s differ", w.ref())
		}
		d.chains(c, w)
		d.sets(c, w)
	}
	d.lost()
	return d.found
}

type differ struct {
	policies []policy.Policy
	found    []Difference
}

func (d *differ) report(sandbox, format string, args ...any) {
	d.found = append(d.found, Difference{Sandbox: sandbox, Text: fmt.Sprintf(format, args...)})
}

func (d *differ) chains(current, wanted Table) {
	for _, w := range wanted.Chains {
		c, ok := current.chain(w.Name)
		sandbox := d.ofChain(w.Name)
		if !ok {
			d.report(sandbox, "chain %s %s is missing", wanted.ref(), w.Name)
		} else if !slices.Equal(c.Rules, w.Rules) {
			d.report(sandbox, "chain %s %s has other rules: %s", wanted.ref(), w.Name, firstDifference(c.Rules, w.Rules))
		}
	}
	for _, c := range current.Chains {
		if _, ok := wanted.chain(c.Name); !ok {
			d.report("", "chain %s %s is not ours", current.ref(), c.Name)
		}
	}
}

// lost tells what nobody here can put back: only who asked for it knows what it
// opened.
func (d *differ) lost() {
	for _, p := range d.policies {
		for i, a := range p.Allow {
			if a.Lost() {
				d.report(p.SandboxID, "chain %s%s lost rule %q", sandboxPrefix, p.SandboxID, allowComment(i, len(p.Allow)))
			}
		}
	}
}

func (d *differ) sets(current, wanted Table) {
	for _, w := range wanted.Sets {
		c, _ := current.set(w.Name)
		for _, e := range without(w, c) {
			d.report(d.ofElement(e), "set %s %s lacks %s", wanted.ref(), w.Name, e.key())
		}
		for _, e := range without(c, w) {
			d.report(d.ofElement(e), "set %s %s has a stray %s", wanted.ref(), w.Name, e.key())
		}
	}
}

func (d *differ) ofChain(name string) string {
	id, ok := strings.CutPrefix(name, sandboxPrefix)
	if !ok {
		id, ok = strings.CutPrefix(name, limitPrefix)
	}
	if ok && slices.ContainsFunc(d.policies, func(p policy.Policy) bool { return p.SandboxID == id }) {
		return id
	}
	return ""
}

func (d *differ) ofElement(e Element) string {
	for _, p := range d.policies {
		if slices.Contains(e.Key, p.Interface) || slices.Contains(e.Key, p.Address.String()) {
			return p.SandboxID
		}
	}
	return ""
}

func firstDifference(current, wanted []Rule) string {
	for i, w := range wanted {
		if i >= len(current) {
			return fmt.Sprintf("%q is missing", w.render())
		}
		if current[i] != w {
			return fmt.Sprintf("%q instead of %q", current[i].render(), w.render())
		}
	}
	return fmt.Sprintf("%q is too much", current[len(wanted)].render())
}

// Denied counts the packets that were refused from a policy's port and address.
func Denied(tables []Table, p policy.Policy) uint64 {
	var sum uint64
	for _, t := range tables {
		denied, _ := t.set("denied")
		for _, e := range denied.Elements {
			if k := e.key(); k == p.Interface || k == p.Address.String() {
				sum += e.Packets
			}
		}
	}
	return sum
}
