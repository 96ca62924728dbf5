package plugindoc

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Markdown writes the whole page of a plugin.
func Markdown(w io.Writer, asked launch.Asked) error {
	info := asked.Info
	example, err := Example(asked)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "# %s\n\n%s\n\n", info.Name, sentence(info.Description))
	fmt.Fprintf(w, "| | |\n|---|---|\n| binary | `%s%s` |\n| serves | %s |\n", plugin.BinaryPrefix, info.Name, code(info.Services))
	if len(info.Tools) > 0 {
		var names []string
		for _, t := range info.Tools {
			names = append(names, t.Name)
		}
		fmt.Fprintf(w, "| runs | %s |\n", code(names))
	}
	fmt.Fprintf(w, "| asks for | %s |\n", needs(info.Confinement))
	fmt.Fprintf(w, "\n## Block\n\nWhat is commented out may be left out.\n\n```hcl\n%s```\n", example)
	if b := asked.Schema.Block; len(b.Attributes)+len(b.Blocks) > 0 {
		fmt.Fprintf(w, "\n## Keys of `config`\n")
		keys(w, "", b)
	}
	return nil
}

func sentence(s string) string {
	if s = strings.TrimSpace(s); s == "" {
		return "It does not say what it does."
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

func code(words []string) string {
	if len(words) == 0 {
		return "nothing"
	}
	return "`" + strings.Join(words, "`, `") + "`"
}

// needs says what a plugin asks for.
func needs(c plugin.Confinement) string {
	if c.StartsWorkloads {
		return "everything: what it starts outlives it, and would inherit every limit"
	}
	var parts []string
	switch c.User {
	case "":
		parts = append(parts, "root")
	case plugin.NoUser:
		parts = append(parts, "a user that owns nothing")
	default:
		parts = append(parts, "the user "+c.User)
	}
	parts = append(append(parts, c.Capabilities...), c.Devices...)
	if c.Network {
		parts = append(parts, "the network")
	}
	return strings.Join(parts, ", ")
}

// keys writes the tables of a block's keys and of the blocks in it.
func keys(w io.Writer, path string, b plugin.Block) {
	if b.Description != "" {
		fmt.Fprintf(w, "\n%s\n", b.Description)
	}
	if len(b.Attributes) > 0 {
		fmt.Fprint(w, "\n| key | type | default | |\n|---|---|---|---|\n")
	}
	for _, a := range b.Attributes {
		fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", a.Name, cell(typeText(a.Type)), cell(defaultText(a)), cell(about(a)))
	}
	for _, n := range b.Blocks {
		fmt.Fprintf(w, "\n### Block `%s%s`\n\n%s\n", path, head(n), howOften(n))
		keys(w, path+n.Name+".", n.Block)
	}
}

func head(n plugin.NestedBlock) string {
	if n.Nesting == plugin.NestingMap {
		return n.Name + ` "` + strings.ToUpper(labelOf(n)) + `"`
	}
	return n.Name
}

func labelOf(n plugin.NestedBlock) string {
	if n.Label == "" {
		return "name"
	}
	return n.Label
}

func howOften(n plugin.NestedBlock) string {
	switch {
	case n.Nesting == plugin.NestingSingle && n.MinItems > 0:
		return "Required, once."
	case n.Nesting == plugin.NestingSingle && n.Absent() != nil:
		return "At most once. Without it its keys have their defaults."
	case n.Nesting == plugin.NestingSingle:
		return "At most once."
	case n.MaxItems > 0:
		return fmt.Sprintf("From %d to %d times.", n.MinItems, n.MaxItems)
	case n.MinItems > 0:
		return fmt.Sprintf("At least %d times.", n.MinItems)
	}
	return "Any number of times."
}

// typeText writes a type as HCL does.
func typeText(t plugin.Type) string {
	parsed, err := ctyjson.UnmarshalType(t.JSON())
	if err != nil {
		return "`" + string(t.JSON()) + "`"
	}
	return "`" + typeexpr.TypeString(parsed) + "`"
}

// defaultText says nothing of a default that is a secret.
func defaultText(a plugin.Attribute) string {
	raw, ok := a.Default.(json.RawMessage)
	switch {
	case !ok:
		return ""
	case a.Sensitive:
		return "*hidden*"
	}
	return "`" + string(raw) + "`"
}

func about(a plugin.Attribute) string {
	var parts []string
	if a.Deprecation != "" {
		parts = append(parts, "*Deprecated:* "+sentence(a.Deprecation))
	}
	if a.Description != "" {
		parts = append(parts, sentence(a.Description))
	}
	if len(a.OneOf) > 0 {
		parts = append(parts, "One of "+code(a.OneOf)+".")
	}
	if text := span(a); text != "" {
		parts = append(parts, sentence(text))
	}
	if a.Required {
		parts = append(parts, "*Required.*")
	}
	if a.Sensitive {
		parts = append(parts, "*Secret:* it is never shown.")
	}
	return strings.Join(parts, " ")
}

// span says in which range a number must be; "" for any.
func span(a plugin.Attribute) string {
	number := func(n *float64) string { return strconv.FormatFloat(*n, 'f', -1, 64) }
	switch {
	case a.Min != nil && a.Max != nil:
		return "from " + number(a.Min) + " to " + number(a.Max)
	case a.Min != nil:
		return "at least " + number(a.Min)
	case a.Max != nil:
		return "at most " + number(a.Max)
	}
	return ""
}

// cell keeps text in its cell of a table.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\r", "", "\n", " ").Replace(s)
}
