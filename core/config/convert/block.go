package convert

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/agentlab/agentlab/core/config"
)

// nameKey is the key of the YAML form that becomes a profile's label.
const nameKey = "name"

// entry is a key with its value and the comments around them.
type entry struct {
	key        string
	line       int
	value      *yaml.Node
	head, foot string
	behind     string // on the key's own line
}

// pluginBlock collects the keys of one plugin.
type pluginBlock struct {
	owner   config.Owned
	entries []entry
}

// document writes one document; it is the number n of the file.
func (c *converter) document(kind Kind, doc *yaml.Node, n int) {
	if n > 0 && kind != Profile {
		c.fail(doc.Content[0].Line, "put it into a file of its own", "a second document in one file")
		return
	}
	if n > 0 {
		c.blank()
	}
	entries := c.entries(doc.Content[0])
	c.comment(0, doc.HeadComment, doc.Line)
	if doc.HeadComment != "" {
		c.blank()
	}
	switch kind {
	case Config:
		c.config(entries)
	case Profile:
		c.profile(doc.Content[0].Line, entries)
	case Part:
		c.body(0, entries, config.ProfileSchema()[0].Fields)
	}
	if doc.FootComment != "" {
		c.blank()
		c.comment(0, doc.FootComment, 0)
	}
}

// entries takes a mapping apart and refuses what has no form in HCL.
func (c *converter) entries(m *yaml.Node) []entry {
	var out []entry
	seen := map[string]int{}
	for i := 0; i+1 < len(m.Content); i += 2 {
		k, v := m.Content[i], m.Content[i+1]
		switch {
		case k.ShortTag() == "!!merge":
			c.fail(k.Line, "write the keys out", "merged keys (<<) are not converted")
			continue
		case k.Kind != yaml.ScalarNode:
			c.fail(k.Line, "", "a key must be a plain word")
			continue
		case seen[k.Value] > 0:
			c.fail(k.Line, "", "%s is there twice, first in line %d", k.Value, seen[k.Value])
			continue
		}
		seen[k.Value] = k.Line
		e := entry{
			key: k.Value, line: k.Line, value: v, head: joined(k.HeadComment, v.HeadComment),
			behind: joined(k.LineComment, v.LineComment), foot: joined(v.FootComment, k.FootComment),
		}
		if v.Kind == yaml.AliasNode {
			e.value = v.Alias
		}
		out = append(out, e)
	}
	return out
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n" + b
}

// config writes the daemon's configuration: its own keys first, then the blocks
// of plugins that own some.
func (c *converter) config(entries []entry) {
	fields := config.Schema()
	var own []entry
	for _, e := range entries {
		if owner, ok := config.PluginKey(e.key); ok {
			c.plugin(owner, e)
			continue
		}
		own = append(own, e)
	}
	c.body(0, own, fields)
	for _, p := range c.plugins {
		c.blank()
		c.put(0, fmt.Sprintf("plugin %s %s {", quoted(p.owner.Kind), quoted(p.owner.Plugin)), p.entries[0].line)
		c.put(1, "config {", p.entries[0].line)
		for _, e := range p.entries {
			c.entry(2, e, config.Field{Name: e.key, Type: config.TypeString})
		}
		c.put(1, "}", 0)
		c.put(0, "}", 0)
	}
}

func (c *converter) plugin(owner config.Owned, e entry) {
	for _, p := range c.plugins {
		if p.owner.Kind != owner.Kind {
			continue
		}
		if p.owner.Plugin != owner.Plugin {
			c.fail(e.line, "keep the keys of one of them", "%s belongs to plugin %s, but %s of line %d belongs to plugin %s; there is one %s plugin",
				e.key, owner.Plugin, p.entries[0].key, p.entries[0].line, p.owner.Plugin, owner.Kind)
			return
		}
		e.key = owner.Key
		p.entries = append(p.entries, e)
		return
	}
	e.key = owner.Key
	c.plugins = append(c.plugins, &pluginBlock{owner, []entry{e}})
}

// profile writes a profile's block.
func (c *converter) profile(line int, entries []entry) {
	var name *entry
	var rest []entry
	for _, e := range entries {
		if e.key == nameKey {
			name = &e
			continue
		}
		rest = append(rest, e)
	}
	if name == nil {
		c.fail(line, "add name: NAME", "the profile has no name")
		name = &entry{line: line, value: &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str"}}
	}
	label, _ := c.scalar(*name, config.TypeString)
	c.comment(0, name.head, name.line)
	c.comment(0, name.behind, name.line)
	c.put(0, "profile "+label+" {", name.line)
	c.comment(1, name.foot, name.line)
	c.body(1, rest, config.ProfileSchema()[0].Fields)
	c.put(0, "}", 0)
}

// body writes entries, which the fields describe.
func (c *converter) body(depth int, entries []entry, fields []config.Field) {
	for _, e := range entries {
		f, ok := config.Find(fields, e.key)
		switch {
		case !ok:
			c.fail(e.line, c.stranger(e.key, fields), "unknown key %q", e.key)
		case f.Type != "":
			c.entry(depth, e, f)
		case f.Labels > 0:
			c.fail(e.line, "write the block into the HCL file", "%s has no YAML form", e.key)
		default:
			c.block(depth, e, f)
		}
	}
}

// stranger knows the keys that are only in the YAML form.
func (c *converter) stranger(key string, fields []config.Field) string {
	among := fields
	if _, daemon := config.Find(fields, "data_dir"); daemon {
		for _, name := range config.PluginKeys() {
			among = append(among, config.Field{Name: name, Type: config.TypeString})
		}
	} else if _, profile := config.Find(fields, "template_vmid"); profile {
		among = append(among, config.Field{Name: nameKey, Type: config.TypeString})
	}
	return config.Stranger(key, among)
}

func (c *converter) block(depth int, e entry, f config.Field) {
	if e.value.ShortTag() == "!!null" {
		c.warn(e.line, "", "%s has no value and is left out", e.key)
		c.comment(depth, joined(joined(e.head, e.behind), e.foot), e.line)
		return
	}
	if e.value.Kind != yaml.MappingNode {
		c.fail(e.line, "", "%s: must be a block of keys", e.key)
		return
	}
	c.blank()
	c.comment(depth, e.head, e.line)
	c.comment(depth, e.behind, e.line)
	c.put(depth, e.key+" {", e.line)
	c.body(depth+1, c.entries(e.value), f.Fields)
	c.put(depth, "}", 0)
	c.comment(depth, e.foot, 0)
}

// entry writes a key with its value and comments.
func (c *converter) entry(depth int, e entry, f config.Field) {
	c.spaced(e)
	if e.value.ShortTag() == "!!null" {
		c.warn(e.line, "", "%s has no value and is left out", e.key)
		c.comment(depth, joined(joined(e.head, e.behind), e.foot), e.line)
		return
	}
	c.comment(depth, e.head, e.line)
	if f.Type == config.TypeList {
		c.list(depth, e)
	} else if value, ok := c.scalar(e, f.Type); ok {
		c.valued(depth, e, value)
	}
	c.comment(depth, e.foot, 0)
}

// valued writes the key's line; a comment of several lines goes above it.
func (c *converter) valued(depth int, e entry, value string) {
	if strings.Contains(e.behind, "\n") {
		c.comment(depth, e.behind, e.line)
		e.behind = ""
	}
	c.put(depth, strings.TrimSpace(e.key+" = "+value+" "+e.behind), e.line)
}
