package convert

import (
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"go.yaml.in/yaml/v3"

	"github.com/agentlab/agentlab/core/config"
)

// longLine is where a list is broken.
const longLine = 100

func quoted(s string) string { return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes()) }

// scalar gives the value as it is written in HCL.
func (c *converter) scalar(e entry, t config.Type) (string, bool) {
	v := e.value
	if v.Kind != yaml.ScalarNode {
		c.fail(e.line, "", "%s: must be a single value, of type %s", e.key, t)
		return "", false
	}
	switch t {
	case config.TypeInteger, config.TypeNumber:
		return c.number(e, t)
	case config.TypeBool:
		return c.boolean(e)
	case config.TypeDuration:
		if tag := v.ShortTag(); tag == "!!int" || tag == "!!float" {
			c.fail(e.line, `write a unit, such as "`+v.Value+`s" or "`+v.Value+`m"`, "%s: %s is no duration", e.key, v.Value)
			return "", false
		}
	}
	return c.text(e.key, v)
}

// text takes any plain value as it is written: a version 1.10 is no number.
func (c *converter) text(key string, v *yaml.Node) (string, bool) {
	switch v.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp":
		return quoted(v.Value), true
	case "!!null":
		c.fail(v.Line, `write ""`, "%s: has an empty value", key)
	default:
		c.fail(v.Line, "", "%s: the tag %s is not understood", key, v.Tag)
	}
	return "", false
}

var plainNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

func (c *converter) number(e entry, t config.Type) (string, bool) {
	v := e.value
	var whole int64
	var real float64
	switch tag := v.ShortTag(); {
	case tag == "!!int" && v.Decode(&whole) == nil:
		return strconv.FormatInt(whole, 10), true
	case tag == "!!float" && t == config.TypeNumber && v.Decode(&real) == nil && !math.IsNaN(real) && !math.IsInf(real, 0):
		if plainNumber.MatchString(v.Value) {
			return v.Value, true
		}
		return strconv.FormatFloat(real, 'f', -1, 64), true
	case tag == "!!str" && plainNumber.MatchString(v.Value):
		c.fail(e.line, "write it without quotes", "%s: %q is a text, not a number", e.key, v.Value)
	default:
		c.fail(e.line, "", "%s: must be a number, of type %s", e.key, t)
	}
	return "", false
}

func (c *converter) boolean(e entry) (string, bool) {
	var b bool
	if tag := e.value.ShortTag(); (tag == "!!bool" || e.value.Style == 0) && e.value.Decode(&b) == nil { // yes and no, too
		return strconv.FormatBool(b), true
	}
	c.fail(e.line, "", "%s: must be true or false", e.key)
	return "", false
}

// list writes a list, on one line where that is short and without comments.
func (c *converter) list(depth int, e entry) {
	if e.value.Kind != yaml.SequenceNode {
		how := ""
		if e.value.Kind == yaml.ScalarNode {
			how = "write [" + e.value.Value + "]"
		}
		c.fail(e.line, how, "%s: must be a list", e.key)
		return
	}
	var items []string
	commented := false
	for _, v := range e.value.Content {
		commented = commented || joined(joined(v.HeadComment, v.LineComment), v.FootComment) != ""
		if v.Kind == yaml.AliasNode {
			v = v.Alias
		}
		if v.Kind != yaml.ScalarNode {
			c.fail(v.Line, "", "%s: has an element that is not a single value", e.key)
			return
		}
		item, ok := c.text(e.key, v)
		if !ok {
			return
		}
		items = append(items, item)
	}
	line := "[" + strings.Join(items, ", ") + "]"
	if !commented && len(e.key)+len(line) < longLine {
		c.valued(depth, e, line)
		return
	}
	c.comment(depth, e.behind, e.line)
	c.put(depth, e.key+" = [", e.line)
	for i, v := range e.value.Content {
		c.comment(depth+1, v.HeadComment, v.Line)
		if strings.Contains(v.LineComment, "\n") {
			c.comment(depth+1, v.LineComment, v.Line)
			c.put(depth+1, items[i]+",", v.Line)
		} else {
			c.put(depth+1, strings.TrimSpace(items[i]+", "+v.LineComment), v.Line)
		}
		c.comment(depth+1, v.FootComment, v.Line)
	}
	c.put(depth, "]", 0)
}
