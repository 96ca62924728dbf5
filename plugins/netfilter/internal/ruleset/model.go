package ruleset

import (
	"fmt"
	"slices"
	"strings"
)

// Table is one nft table. Rules are kept as text in the one spelling that both
// Build and the reader of nft's JSON use, so that they compare.
type Table struct {
	Family, Name string
	Sets         []Set
	Chains       []Chain
}

// Set is a named set, or a verdict map when Verdicts is set.
type Set struct {
	Name     string
	Types    []string // "ifname", "ether_addr", "ipv4_addr", "inet_service"
	Verdicts bool
	Interval bool
	Counted  bool // every element counts what it matched
	Elements []Element
}

// Element is one member of a Set.
type Element struct {
	Key            []string
	Verdict        string // maps only: "goto NAME"
	Packets, Bytes uint64 // counted sets only
}

// Chain is a chain; Hook is nil unless the kernel calls it by itself.
type Chain struct {
	Name  string
	Hook  *Hook
	Rules []Rule
}

// Hook is where a base chain sits. Its policy is always accept: a chain of ours
// must not decide over traffic that is not the agent network's.
type Hook struct {
	Type, Name string
	Priority   int
	Policy     string
}

// Rule is one rule.
type Rule struct{ Text, Comment string }

func (e Element) key() string { return strings.Join(e.Key, " . ") }

func (s Set) definition() string {
	return fmt.Sprint(s.Name, s.Types, s.Verdicts, s.Interval, s.Counted)
}

func (t Table) ref() string { return t.Family + " " + t.Name }

func (t Table) set(name string) (Set, bool) {
	i := slices.IndexFunc(t.Sets, func(s Set) bool { return s.Name == name })
	if i < 0 {
		return Set{}, false
	}
	return t.Sets[i], true
}

func (t Table) chain(name string) (Chain, bool) {
	i := slices.IndexFunc(t.Chains, func(c Chain) bool { return c.Name == name })
	if i < 0 {
		return Chain{}, false
	}
	return t.Chains[i], true
}

func find(tables []Table, family string) (Table, bool) {
	i := slices.IndexFunc(tables, func(t Table) bool { return t.Family == family && t.Name == Name })
	if i < 0 {
		return Table{}, false
	}
	return tables[i], true
}
