package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// words puts what the language says of a file into our words: those for people
// who write settings, and know nothing of arguments, tuples and expressions.
type words struct {
	src    []byte
	body   *hclsyntax.Body // nil for a text that is not HCL
	fields []Field
}

func (w words) of(diags hcl.Diagnostics) Diagnostics {
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int { // they come in the order of a map
		if a.Subject == nil || b.Subject == nil {
			return 0
		}
		return cmp.Compare(a.Subject.Start.Byte, b.Subject.Start.Byte)
	})
	var out Diagnostics
	said, open := map[hcl.Range]bool{}, false
	for _, d := range diags {
		text, how := w.say(d)
		if d.Subject == nil || text == "" {
			out = append(out, d)
			continue
		}
		at := lineOf(*d.Subject)
		if text == openText && open || d.Summary == wrongType && said[at] {
			continue // an echo
		}
		said[at], open = true, open || text == openText
		out = out.add(d.Severity, *d.Subject, text, how)
	}
	return out
}

// wrongType is how the language titles a value of another type.
const wrongType = "Unsuitable value type"

// openText: what follows is read as text too, up to the next quotation mark.
const openText = `a text is not closed: there is no second " on this line`

// oneLine is how the language titles what is no setting in a block on one line.
const oneLine = "Argument definition required"

// syntax is what can be said about mistakes that make the file no HCL.
var syntax = map[string][2]string{
	"Missing newline after argument":            {"something follows the value", "put texts in quotes, and each setting on a line of its own"},
	"Missing newline after block definition":    {"something follows the }", "begin a new line after it"},
	"Invalid single-argument block definition":  {"a block on one line holds one setting at most", "put each setting on a line of its own"},
	"Invalid block definition":                  {"a block cannot be read", `write name { … }, with a "label" where it has one, and begin a new line after {`},
	"Argument or block definition required":     {"this is neither a setting nor a block", "write name = value, or name { … }"},
	oneLine:                                     {"this is not a setting", "write name = value"},
	"Invalid argument name":                     {"the name of a setting is not in quotes", "write name = value"},
	"Invalid expression":                        {"a value is missing, or cannot be read", "write name = value, with texts in quotes"},
	"Missing expression":                        {"a value is missing", "write name = value"},
	"Invalid multi-line string":                 {openText, `close it with "`},
	"Unterminated template string":              {openText, `close it with "`},
	"Unterminated string literal":               {openText, `close it with "`},
	"Invalid string literal":                    {openText, `close it with "`},
	"Unclosed configuration block":              {"a block is not closed", "write } at its end"},
	"Unclosed configuration body":               {"a block is not closed", "write } at its end"},
	"Unterminated tuple constructor expression": {"a list is not closed", "write ] at its end"},
	"Missing item separator":                    {"a list cannot be read", "put a comma between its items, and texts in quotes"},
	"Unclosed template interpolation sequence":  {"${ is not closed", "write $${ for a text that begins so"},
	"Invalid escape sequence":                   {`\ begins an escape that there is not`, `write \\ for a backslash`},
	"Invalid character encoding":                {"it is not UTF-8 text", ""},
}

var (
	setBefore  = regexp.MustCompile(`^The argument "(.+)" was already set at .*:(\d+),`)
	twoBlocks  = regexp.MustCompile(`^Duplicate (\w+) block$`)
	blockAlso  = regexp.MustCompile(`defined at .*:(\d+),`)
	labelOf    = regexp.MustCompile(`^(?:Missing \w+|Extraneous label) for (\w+)$`)
	colon      = regexp.MustCompile(`^\s*\w+\s*:`)
	lineNumber = 2
)

// say gives the words and the remedy, "" for what it does not know.
func (w words) say(d *hcl.Diagnostic) (text, how string) {
	if known, ok := syntax[d.Summary]; ok {
		if colon.MatchString(w.line(d)) {
			return "a setting is written with =, not with :", "write name = value"
		}
		if d.Summary == oneLine && w.beginsBlock(d) {
			return "a block inside a block needs lines of its own", "begin a new line after the { of the outer one, and before its }"
		}
		return known[0], known[1]
	}
	if m := setBefore.FindStringSubmatch(d.Detail); m != nil {
		return fmt.Sprintf("%s is set twice; the first is at line %s", m[1], m[lineNumber]), ""
	}
	if m := twoBlocks.FindStringSubmatch(d.Summary); m != nil {
		text := "a second block " + m[1]
		if at := blockAlso.FindStringSubmatch(d.Detail); at != nil {
			text += "; the first is at line " + at[1]
		}
		return text, ""
	}
	if m := labelOf.FindStringSubmatch(d.Summary); m != nil {
		if f, ok := Find(w.fields, m[1]); ok {
			return fmt.Sprintf("%s needs %s", m[1], map[int]string{0: "no name", 1: "one name", 2: "two names"}[f.Labels]),
				"write " + m[1] + strings.Repeat(` "…"`, f.Labels) + " { … }"
		}
	}
	return w.value(d)
}

// beginsBlock reports whether the place is a name with a label or { behind it.
func (w words) beginsBlock(d *hcl.Diagnostic) bool {
	if d.Subject == nil || !d.Subject.CanSliceBytes(w.src) {
		return false
	}
	text := string(d.Subject.SliceBytes(w.src))
	return strings.HasSuffix(text, "{") || strings.HasSuffix(text, `"`)
}

// line is the text of the line that the diagnostic is about.
func (w words) line(d *hcl.Diagnostic) string {
	lines := strings.Split(string(w.src), "\n")
	if d.Subject == nil || d.Subject.Start.Line < 1 || d.Subject.Start.Line > len(lines) {
		return ""
	}
	return lines[d.Subject.Start.Line-1]
}

// value speaks of a value that its key cannot have.
func (w words) value(d *hcl.Diagnostic) (text, how string) {
	if w.body == nil || d.Subject == nil {
		return "", ""
	}
	attr, field := w.at(w.body, w.fields, d.Subject.Start)
	if attr == nil {
		return "", ""
	}
	switch d.Summary {
	case wrongType:
		want := expected[field.Type]
		if got := kindOf(attr.Expr); got != "" && !strings.HasPrefix(want.text, got) {
			return fmt.Sprintf("%s: must be %s, not %s", attr.Name, want.text, got), want.how(attr.Name)
		}
		return fmt.Sprintf("%s: must be %s", attr.Name, want.text), want.how(attr.Name)
	case "Variables not allowed":
		return fmt.Sprintf("%s: %s is not in quotes", attr.Name, d.Subject.SliceBytes(w.src)), "put texts in quotes; there are no variables"
	case "Function calls not allowed":
		return fmt.Sprintf("%s: there are no functions here", attr.Name), "write the value itself"
	}
	return "", ""
}

// at finds the key whose value is at the place.
func (w words) at(body *hclsyntax.Body, fields []Field, pos hcl.Pos) (*hclsyntax.Attribute, Field) {
	for _, a := range body.Attributes {
		if a.SrcRange.ContainsPos(pos) || a.Expr.Range().ContainsPos(pos) {
			f, _ := Find(fields, a.Name)
			return a, f
		}
	}
	for _, b := range body.Blocks {
		if b.Range().ContainsPos(pos) {
			f, _ := Find(fields, b.Type)
			return w.at(b.Body, f.Fields, pos)
		}
	}
	return nil, Field{}
}

// want is what a type of key takes, and an example.
type want struct{ text, example string }

func (w want) how(name string) string {
	if w.example == "" {
		return ""
	}
	return "write " + name + " = " + w.example
}

var expected = map[Type]want{
	TypeString: {"a text", `"…"`}, TypeDuration: {"a text", `"10m"`},
	TypeInteger: {"a whole number", ""}, TypeNumber: {"a number", ""},
	TypeBool: {"true or false", ""}, TypeList: {"a list of texts", `["…", "…"]`},
}

// kindOf names what is written, "" when that cannot be said.
func kindOf(e hclsyntax.Expression) string {
	v, diags := e.Value(nil)
	if diags.HasErrors() {
		return ""
	}
	switch t := v.Type(); {
	case t == cty.String:
		return "a text"
	case t == cty.Number:
		return "a number with a fraction"
	case t == cty.Bool:
		return "true or false"
	case t.IsTupleType():
		return "a list"
	case t.IsObjectType():
		return "a map"
	}
	return ""
}
