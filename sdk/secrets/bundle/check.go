package bundle

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// reader walks the tree along the schema and collects what it finds.
type reader struct {
	keys     []string
	errs     []string
	warnings []string
}

func (r *reader) fail(n *yaml.Node, path, format string, args ...any) {
	if path == "" {
		path = "bundle"
	}
	r.errs = append(r.errs, fmt.Sprintf("%s (line %d): %s", path, n.Line, fmt.Sprintf(format, args...)))
}

func (r *reader) key(path string) { r.keys = append(r.keys, path) }

// node reads n by its rule. A nil answer means that nothing usable is there.
func (r *reader) node(n *yaml.Node, rl *rule, path string) any {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		r.fail(n, path, "anchors and aliases are not allowed")
		return nil
	}
	switch rl.shape {
	case fixed, open:
		return r.mapping(n, rl, path)
	case list:
		return r.list(n, path)
	case number:
		if n.Kind != yaml.ScalarNode || n.Value != "1" {
			r.fail(n, path, "must be 1, the only version of the bundle format there is")
			return nil
		}
		r.key(path)
		return 1
	case object:
		if n.Kind != yaml.MappingNode {
			r.fail(n, path, "must be a mapping")
			return nil
		}
		r.key(path)
		return r.value(n, path, 0)
	}
	return r.text(n, rl, path)
}

func (r *reader) text(n *yaml.Node, rl *rule, path string) any {
	switch {
	case n.Kind != yaml.ScalarNode:
		r.fail(n, path, "must be text, not a list or a mapping")
		return nil
	case n.ShortTag() == "!!null":
		r.fail(n, path, "has no value")
		return nil
	case strings.ContainsRune(n.Value, 0):
		r.fail(n, path, "holds a zero byte")
		return nil
	}
	if !rl.leaf {
		r.key(path)
	}
	if rl.secret && len(strings.TrimSpace(n.Value)) < secret.MinLength {
		r.warnings = append(r.warnings, fmt.Sprintf("%s is shorter than %d bytes and will not be redacted from logs", path, secret.MinLength))
	}
	return n.Value
}

func (r *reader) list(n *yaml.Node, path string) any {
	if n.Kind != yaml.SequenceNode {
		r.fail(n, path, "must be a list")
		return nil
	}
	r.key(path)
	out := []string{}
	for i, c := range n.Content {
		if v, ok := r.node(c, &rule{shape: text, leaf: true}, fmt.Sprintf("%s[%d]", path, i)).(string); ok {
			out = append(out, v)
		}
	}
	return out
}

func (r *reader) mapping(n *yaml.Node, rl *rule, path string) any {
	if n.Kind != yaml.MappingNode {
		r.fail(n, path, "must be a mapping")
		return nil
	}
	if rl.leaf {
		r.key(path)
	}
	out := map[string]any{}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		child, name := r.child(k, rl, path)
		if child == nil {
			continue
		}
		if seen[k.Value] {
			r.fail(k, name, "is there twice")
			continue
		}
		seen[k.Value] = true
		sub := *child
		sub.leaf = sub.leaf || (rl.leaf && sub.shape == text)
		if got := r.node(v, &sub, name); got != nil {
			out[k.Value] = got
		}
	}
	for _, want := range rl.needed {
		if !seen[want] {
			r.fail(n, path, "%s is missing", want)
		}
	}
	return out
}

// child finds the rule of one key, and its path.
func (r *reader) child(k *yaml.Node, rl *rule, path string) (*rule, string) {
	name := join(path, shown(k))
	switch {
	case k.Kind != yaml.ScalarNode || k.Anchor != "":
		r.fail(k, path, "a key must be plain text")
		return nil, ""
	case rl.shape == open && !rl.name.MatchString(k.Value):
		r.fail(k, name, "%s is not %s", about(k.Value), rl.want)
		return nil, ""
	case rl.shape == open:
		return rl.elem, name
	case rl.fields[k.Value] == nil:
		known := make([]string, 0, len(rl.fields))
		for f := range rl.fields {
			known = append(known, f)
		}
		slices.Sort(known)
		r.fail(k, name, "unknown key; known here: %s", strings.Join(known, ", "))
		return nil, ""
	}
	return rl.fields[k.Value], name
}

// value takes over anything that JSON can say.
func (r *reader) value(n *yaml.Node, path string, depth int) any {
	if n.Kind == yaml.AliasNode || n.Anchor != "" || depth > maxDepth {
		r.fail(n, path, "anchors, aliases and deep nesting are not allowed")
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if _, twice := out[k.Value]; twice || k.Kind != yaml.ScalarNode {
				r.fail(k, path, "keys must be plain text, each once")
				continue
			}
			out[k.Value] = r.value(n.Content[i+1], join(path, shown(k)), depth+1)
		}
		return out
	case yaml.SequenceNode:
		out := make([]any, 0, len(n.Content))
		for i, c := range n.Content {
			out = append(out, r.value(c, fmt.Sprintf("%s[%d]", path, i), depth+1))
		}
		return out
	}
	return scalar(n)
}

func scalar(n *yaml.Node) any {
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		var b bool
		if n.Decode(&b) == nil {
			return b
		}
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) {
			return json.Number(n.Value)
		}
	}
	return n.Value
}

// showable keeps a value that slipped into a key's place out of messages: it starts
// as a name does, or is too short for a secret.
var showable = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_.-]{0,47}|[A-Za-z0-9_.-]{1,16})$`)

func shown(k *yaml.Node) string {
	if k.Kind == yaml.ScalarNode && showable.MatchString(k.Value) {
		return k.Value
	}
	return "?"
}

// about says which name is meant: itself, or of one that may be a value what no name has.
func about(name string) string {
	if showable.MatchString(name) {
		return strconv.Quote(name)
	}
	for i, r := range []rune(name) {
		if !showable.MatchString(string(r)) {
			return fmt.Sprintf("a name with %q as character %d", r, i+1)
		}
	}
	return fmt.Sprintf("a name of %d characters", len(name))
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// semantics checks what the schema cannot say.
func (r *reader) semantics(doc map[string]any) {
	claude, _ := doc["claude"].(map[string]any)
	raw, has := claude["settings_json"].(string)
	if !has {
		return
	}
	var settings map[string]json.RawMessage
	if json.Unmarshal([]byte(raw), &settings) != nil || settings == nil {
		r.errs = append(r.errs, "claude.settings_json: must be text that holds a JSON object")
	}
	if _, both := claude["settings"]; both {
		r.errs = append(r.errs, "claude: has settings and settings_json; one of them is enough")
	}
}

func (r *reader) err() error {
	switch len(r.errs) {
	case 0:
		return nil
	case 1:
		return fault.New(fault.Invalid, "%s", r.errs[0])
	}
	return fault.New(fault.Invalid, "%s (and %d more)", r.errs[0], len(r.errs)-1)
}
