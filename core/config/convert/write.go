package convert

import (
	"bytes"
	"strings"

	"go.yaml.in/yaml/v3"
)

// put writes one line that comes from a line of the YAML.
func (c *converter) put(depth int, text string, from int) {
	c.out.WriteString(strings.Repeat("  ", depth) + text + "\n")
	c.from = append(c.from, from)
}

// comment writes the lines of a comment, which begin with "#" there as here.
func (c *converter) comment(depth int, text string, from int) {
	if text == "" {
		return
	}
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			c.blank()
			continue
		}
		if !strings.HasPrefix(line, "#") {
			line = "# " + line
		}
		c.put(depth, line, from)
	}
}

// blank writes an empty line, but not a second one, nor at the beginning of the
// text or of a block.
func (c *converter) blank() {
	text := c.out.Bytes()
	if len(text) == 0 || bytes.HasSuffix(text, []byte("\n\n")) || bytes.HasSuffix(text, []byte("{\n")) {
		return
	}
	c.put(0, "", 0)
}

// spaced keeps the empty line above a key and its comments, and makes one behind
// a block.
func (c *converter) spaced(e entry) {
	above := e.line - 2 // index of the line above the key
	if e.head != "" {
		above -= strings.Count(e.head, "\n") + 1
	}
	if bytes.HasSuffix(c.out.Bytes(), []byte("}\n")) || above >= 0 && above < len(c.lines) && strings.TrimSpace(c.lines[above]) == "" {
		c.blank()
	}
}

// keepLost writes at the end what comments the parser did not hand over, such as
// those inside of a flow list or of a file without keys.
func (c *converter) keepLost(docs []*yaml.Node) {
	var values []string
	for _, doc := range docs {
		values = append(values, scalars(doc, 0)...)
	}
	kept := c.out.String()
	seen := map[string]int{}
	first := true
	for i, line := range c.lines {
		text := commentOf(line)
		if text == "" || within(values, text) {
			continue
		}
		if seen[text]++; seen[text] <= strings.Count(kept, text) {
			continue
		}
		if len(docs) > 0 {
			c.warn(i+1, "", "a comment here is moved to the end")
		}
		if first && len(docs) > 0 {
			c.blank()
		}
		first = false
		c.put(0, text, i+1)
	}
}

// commentOf gives what is a comment of the line unless it is inside a value.
func commentOf(line string) string {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "#") {
		return line
	}
	for _, before := range []string{" #", "\t#"} {
		if i := strings.Index(line, before); i >= 0 {
			return strings.TrimSpace(line[i:])
		}
	}
	return ""
}

// within reports whether the text is of a value; the quote that ends the value
// may be taken for a part of it.
func within(values []string, text string) bool {
	text = strings.TrimRight(text, `"',]} `)
	for _, v := range values {
		if strings.Contains(v, text) {
			return true
		}
	}
	return false
}

// scalars gives all values below a node. An anchor stands for itself once, so
// aliases are not followed.
func scalars(n *yaml.Node, depth int) []string {
	var out []string
	if n.Kind == yaml.ScalarNode {
		out = append(out, n.Value)
	}
	if depth < 100 {
		for _, inner := range n.Content {
			out = append(out, scalars(inner, depth+1)...)
		}
	}
	return out
}
