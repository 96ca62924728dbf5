package ruleset

import (
	"fmt"
	"slices"
	"strings"
)

// Transaction renders the smallest single transaction that turns current into
// wanted; "" when they are the same. What it cannot change in place (a hook, a
// set's definition, a stranger's set) it replaces whole.
func Transaction(current, wanted []Table) string {
	for _, w := range wanted {
		c, ok := find(current, w.Family)
		if !ok || !sameSkeleton(c, w) {
			return Replace(current, wanted)
		}
	}
	var b strings.Builder
	for _, w := range wanted {
		c, _ := find(current, w.Family)
		changeTable(&b, c, w)
	}
	return b.String()
}

// sameSkeleton reports whether sets and base chains are defined alike, so that
// only elements and rules can differ.
func sameSkeleton(a, b Table) bool {
	if len(a.Sets) != len(b.Sets) {
		return false
	}
	for _, s := range b.Sets {
		o, ok := a.set(s.Name)
		if !ok || o.definition() != s.definition() {
			return false
		}
	}
	return slices.Equal(hooks(a), hooks(b))
}

func hooks(t Table) []string {
	var out []string
	for _, c := range t.Chains {
		if c.Hook != nil {
			out = append(out, fmt.Sprint(c.Name, *c.Hook))
		}
	}
	slices.Sort(out)
	return out
}

// changeTable writes the statements in the order that keeps every reference
// valid: chains appear before something points at them and go after.
func changeTable(b *strings.Builder, current, wanted Table) {
	ref := wanted.ref()
	for _, c := range wanted.Chains {
		if _, ok := current.chain(c.Name); !ok {
			fmt.Fprintf(b, "add chain %s %s\n", ref, c.Name)
		}
	}
	for _, c := range wanted.Chains {
		old, _ := current.chain(c.Name)
		if slices.Equal(old.Rules, c.Rules) {
			continue
		}
		fmt.Fprintf(b, "flush chain %s %s\n", ref, c.Name)
		for _, r := range c.Rules {
			fmt.Fprintf(b, "add rule %s %s %s\n", ref, c.Name, r.render())
		}
	}
	for _, s := range wanted.Sets {
		old, _ := current.set(s.Name)
		for _, e := range without(old, s) {
			fmt.Fprintf(b, "delete element %s %s { %s }\n", ref, s.Name, s.renderKey(e))
		}
		for _, e := range without(s, old) {
			fmt.Fprintf(b, "add element %s %s { %s }\n", ref, s.Name, s.renderElement(e))
		}
	}
	for _, c := range current.Chains {
		if _, ok := wanted.chain(c.Name); !ok {
			fmt.Fprintf(b, "flush chain %s %s\ndelete chain %s %s\n", ref, c.Name, ref, c.Name)
		}
	}
}

// without gives a's elements that b has not.
func without(a, b Set) []Element {
	have := make(map[string]bool, len(b.Elements))
	for _, e := range b.Elements {
		have[e.key()+"\x00"+e.Verdict] = true
	}
	var out []Element
	for _, e := range a.Elements {
		if !have[e.key()+"\x00"+e.Verdict] {
			out = append(out, e)
		}
	}
	return out
}
