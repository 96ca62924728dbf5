package nft

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/ruleset"
)

// The parts of libnftables-json(5) that our own tables use.
type listing struct {
	Objects []struct {
		Table *struct{ Family, Name string }
		Set   *setJSON
		Map   *setJSON
		Chain *struct {
			Name, Type, Hook, Policy string
			Prio                     int
		}
		Rule *struct {
			Chain, Comment string
			Expr           []json.RawMessage
		}
	} `json:"nftables"`
}

type setJSON struct {
	Name  string
	Type  json.RawMessage // one name or a list of them
	Map   string
	Flags []string
	Stmt  []map[string]json.RawMessage
	Elem  []json.RawMessage
}

// decode reads the listing of one table. What it does not know it spells out
// as JSON, so that it differs from everything we would write.
func decode(text []byte) (ruleset.Table, error) {
	var l listing
	if err := json.Unmarshal(text, &l); err != nil {
		return ruleset.Table{}, err
	}
	var t ruleset.Table
	for _, o := range l.Objects {
		switch {
		case o.Table != nil:
			t.Family, t.Name = o.Table.Family, o.Table.Name
		case o.Set != nil, o.Map != nil:
			source := o.Set
			if source == nil {
				source = o.Map
			}
			set, err := decodeSet(*source)
			if err != nil {
				return t, fmt.Errorf("set %s: %w", source.Name, err)
			}
			t.Sets = append(t.Sets, set)
		case o.Chain != nil:
			c := ruleset.Chain{Name: o.Chain.Name}
			if o.Chain.Hook != "" {
				c.Hook = &ruleset.Hook{
					Type: o.Chain.Type, Name: o.Chain.Hook, Priority: o.Chain.Prio, Policy: o.Chain.Policy,
				}
			}
			t.Chains = append(t.Chains, c)
		case o.Rule != nil:
			i := slices.IndexFunc(t.Chains, func(c ruleset.Chain) bool { return c.Name == o.Rule.Chain })
			if i < 0 {
				return t, fmt.Errorf("rule in unlisted chain %q", o.Rule.Chain)
			}
			t.Chains[i].Rules = append(t.Chains[i].Rules, ruleset.Rule{
				Text: ruleText(o.Rule.Expr), Comment: o.Rule.Comment,
			})
		}
	}
	if t.Name == "" {
		return t, fmt.Errorf("no table in the listing")
	}
	return t, nil
}

func decodeSet(in setJSON) (ruleset.Set, error) {
	s := ruleset.Set{Name: in.Name, Verdicts: in.Map == "verdict", Interval: slices.Contains(in.Flags, "interval")}
	var one string
	if json.Unmarshal(in.Type, &one) == nil {
		s.Types = []string{one}
	} else if err := json.Unmarshal(in.Type, &s.Types); err != nil {
		return s, err
	}
	for _, stmt := range in.Stmt {
		if _, ok := stmt["counter"]; ok {
			s.Counted = true
		}
	}
	for _, raw := range in.Elem {
		e, err := decodeElement(raw)
		if err != nil {
			return s, err
		}
		s.Elements = append(s.Elements, e)
	}
	return s, nil
}

func decodeElement(raw json.RawMessage) (ruleset.Element, error) {
	var e ruleset.Element
	// A map's element is [key, verdict].
	var pair []json.RawMessage
	if json.Unmarshal(raw, &pair) == nil {
		if len(pair) != 2 {
			return e, fmt.Errorf("map element %s", raw)
		}
		e.Verdict = statement(pair[1])
		raw = pair[0]
	}
	var wrapped struct {
		Elem *struct {
			Val     json.RawMessage
			Counter struct{ Packets, Bytes uint64 }
		}
		Concat []json.RawMessage
	}
	// Plain values are strings or numbers and do not fit this struct.
	_ = json.Unmarshal(raw, &wrapped)
	if wrapped.Elem != nil {
		e.Packets, e.Bytes = wrapped.Elem.Counter.Packets, wrapped.Elem.Counter.Bytes
		inner, err := decodeElement(wrapped.Elem.Val)
		e.Key = inner.Key
		return e, err
	}
	if wrapped.Concat != nil {
		for _, part := range wrapped.Concat {
			e.Key = append(e.Key, value(part))
		}
		return e, nil
	}
	e.Key = []string{value(raw)}
	return e, nil
}

func ruleText(expr []json.RawMessage) string {
	parts := make([]string, 0, len(expr))
	for _, raw := range expr {
		parts = append(parts, statement(raw))
	}
	return strings.Join(parts, " ")
}
