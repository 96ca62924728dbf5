package ruleset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Replace renders one transaction that puts wanted in place of whatever tables
// of ours there are. Counters of elements that stay are carried over.
func Replace(current, wanted []Table) string {
	var b strings.Builder
	for _, t := range wanted {
		// Declaring first makes the deletion valid whether or not it exists.
		fmt.Fprintf(&b, "table %s\ndelete table %s\n", t.ref(), t.ref())
	}
	for _, t := range wanted {
		before, _ := find(current, t.Family)
		renderTable(&b, carryCounters(before, t))
	}
	return b.String()
}

// Text renders the tables as an nft file.
func Text(tables []Table) string {
	var b strings.Builder
	for _, t := range tables {
		renderTable(&b, t)
	}
	return b.String()
}

func carryCounters(before, t Table) Table {
	t.Sets = slices.Clone(t.Sets)
	for i, s := range t.Sets {
		old, ok := before.set(s.Name)
		if !s.Counted || !ok {
			continue
		}
		s.Elements = slices.Clone(s.Elements)
		for j, e := range s.Elements {
			for _, o := range old.Elements {
				if o.key() == e.key() {
					s.Elements[j].Packets, s.Elements[j].Bytes = o.Packets, o.Bytes
				}
			}
		}
		t.Sets[i] = s
	}
	return t
}

func renderTable(b *strings.Builder, t Table) {
	fmt.Fprintf(b, "table %s {\n", t.ref())
	for _, s := range t.Sets {
		renderSet(b, s)
	}
	for _, c := range t.Chains {
		fmt.Fprintf(b, "\tchain %s {\n", c.Name)
		if h := c.Hook; h != nil {
			fmt.Fprintf(b, "\t\ttype %s hook %s priority %d; policy %s;\n", h.Type, h.Name, h.Priority, h.Policy)
		}
		for _, r := range c.Rules {
			fmt.Fprintf(b, "\t\t%s\n", r.render())
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
}

func renderSet(b *strings.Builder, s Set) {
	kind, suffix := "set", ""
	if s.Verdicts {
		kind, suffix = "map", " : verdict"
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\ttype %s%s\n", kind, s.Name, strings.Join(s.Types, " . "), suffix)
	if s.Interval {
		b.WriteString("\t\tflags interval\n")
	}
	if s.Counted {
		b.WriteString("\t\tcounter\n")
	}
	if len(s.Elements) > 0 {
		b.WriteString("\t\telements = {\n")
		for _, e := range s.Elements {
			fmt.Fprintf(b, "\t\t\t%s,\n", s.renderElement(e))
		}
		b.WriteString("\t\t}\n")
	}
	b.WriteString("\t}\n")
}

func (s Set) renderElement(e Element) string {
	text := s.renderKey(e)
	if e.Packets != 0 || e.Bytes != 0 {
		text += fmt.Sprintf(" counter packets %d bytes %d", e.Packets, e.Bytes)
	}
	if e.Verdict != "" {
		text += " : " + e.Verdict
	}
	return text
}

func (s Set) renderKey(e Element) string {
	parts := slices.Clone(e.Key)
	for i := range parts {
		if i < len(s.Types) && s.Types[i] == "ifname" {
			parts[i] = strconv.Quote(parts[i])
		}
	}
	return strings.Join(parts, " . ")
}

func (r Rule) render() string {
	if r.Comment == "" {
		return r.Text
	}
	return r.Text + " comment " + strconv.Quote(r.Comment)
}
