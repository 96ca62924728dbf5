package pluginhost

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	ctyjson "github.com/zclconf/go-cty/cty/json"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secret"
)

// decoded is a config body on its way to the plugin.
type decoded struct {
	block  Block
	schema plugin.Block
	json   json.RawMessage
	diags  hcl.Diagnostics

	hidden   []secret.Value // values of sensitive attributes
	redactor *secret.Redactor
}

// decodeBlock decodes the body by the schema, fills in defaults and leaves out
// what is absent. All that is wrong is in diags.
func decodeBlock(block Block, schema *plugin.Schema) *decoded {
	d := &decoded{block: block, schema: schema.Block, redactor: secret.NewRedactor()}
	if d.block.Body == nil {
		d.block.Body = hcl.EmptyBody()
	}
	spec, err := specOf(schema.Block)
	if err != nil {
		d.say(hcl.DiagError, nil, "the plugin publishes a schema that cannot be used", err.Error())
		return d
	}
	value, diags := hcldec.Decode(d.block.Body, spec, nil)
	for _, one := range diags {
		d.diags = append(d.diags, d.plain(one))
	}
	if diags.HasErrors() {
		return d
	}
	raw, err := json.Marshal(ctyjson.SimpleJSONValue{Value: value})
	if err != nil {
		d.say(hcl.DiagError, nil, "the configuration cannot be written as JSON", err.Error())
		return d
	}
	object, err := unmarshal(raw)
	if err != nil {
		d.say(hcl.DiagError, nil, "the configuration cannot be read as JSON", err.Error())
		return d
	}
	fields, _ := object.(map[string]any)
	d.walk(schema.Block, fields, nil)
	d.redactor = secret.NewRedactor(d.hidden...)
	if d.json, err = json.Marshal(fields); err != nil {
		d.say(hcl.DiagError, nil, "the configuration cannot be written as JSON", err.Error())
	}
	return d
}

func unmarshal(raw []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // sizes in bytes do not fit a float
	var out any
	err := dec.Decode(&out)
	return out, err
}

// strangeKey is what hcldec says of an attribute that the schema does not have.
var strangeKey = regexp.MustCompile(`^An argument named ("[^"]*") is not expected here\. ?(Did you mean .*)?`)

// plain strips what would let a printer show values, and gives a place to what
// has none because there is no config block.
func (d *decoded) plain(one *hcl.Diagnostic) *hcl.Diagnostic {
	out := &hcl.Diagnostic{Severity: one.Severity, Summary: one.Summary, Detail: one.Detail, Subject: one.Subject}
	if name := strangeKey.FindStringSubmatch(one.Detail); name != nil { // in the words of config check
		out.Summary, out.Detail = "unknown key "+name[1], name[2]
	}
	if out.Subject == nil || out.Subject.Filename == "" {
		out.Subject = &d.block.Range
	}
	return out
}

func (d *decoded) say(severity hcl.DiagnosticSeverity, path plugin.Path, summary, detail string) {
	at := locate(d.block.Body, d.schema, path, d.block.Range)
	d.diags = append(d.diags, &hcl.Diagnostic{Severity: severity, Summary: summary, Detail: detail, Subject: &at})
}

// remark takes over what the plugin says about its configuration.
func (d *decoded) remark(remarks []plugin.Diagnostic) {
	for _, r := range remarks {
		severity := hcl.DiagError
		if r.Severity == plugin.SeverityWarning {
			severity = hcl.DiagWarning
		}
		d.say(severity, r.Path, d.redactor.String(r.Summary), d.redactor.String(r.Detail))
	}
}

// redact removes values of sensitive attributes from an error of the plugin.
func (d *decoded) redact(err error) error {
	var e *fault.Error
	if !errors.As(err, &e) {
		return fault.New(fault.ClassOf(err), "%s", d.redactor.String(err.Error()))
	}
	out := *e
	for _, text := range []*string{&out.Message, &out.Hint, &out.Resource, &out.Holder, &out.Command, &out.Stderr} {
		*text = d.redactor.String(*text)
	}
	return &out
}

// walk checks and completes one block of the decoded configuration.
func (d *decoded) walk(b plugin.Block, fields map[string]any, path plugin.Path) {
	for _, a := range b.Attributes {
		at := append(slices.Clone(path), plugin.Attr(a.Name))
		if value := fields[a.Name]; value != nil {
			d.checkAttribute(a, value, at)
			continue
		}
		delete(fields, a.Name)
		if def, ok := a.Default.(json.RawMessage); ok {
			if value, err := unmarshal(def); err == nil && value != nil {
				fields[a.Name] = value
			}
		}
	}
	for _, n := range b.Blocks {
		at := append(slices.Clone(path), plugin.Attr(n.Name))
		switch value := fields[n.Name].(type) {
		case nil:
			delete(fields, n.Name)
			if absent := n.Absent(); absent != nil {
				fields[n.Name] = absent
			}
		case []any:
			for i, item := range value {
				inner, _ := item.(map[string]any)
				d.walk(n.Block, inner, append(slices.Clone(at), plugin.Index(i)))
			}
		case map[string]any:
			d.walkObject(n, value, at)
		}
	}
}

// walkObject takes a single block, or a map of blocks by label.
func (d *decoded) walkObject(n plugin.NestedBlock, value map[string]any, at plugin.Path) {
	if n.Nesting == plugin.NestingSingle {
		d.walk(n.Block, value, at)
		return
	}
	if count := int64(len(value)); count < n.MinItems || n.MaxItems > 0 && count > n.MaxItems {
		d.say(hcl.DiagError, at, fmt.Sprintf("%d blocks %q", count, n.Name), atMost(n))
	}
	for _, key := range slices.Sorted(maps.Keys(value)) {
		inner, _ := value[key].(map[string]any)
		d.walk(n.Block, inner, append(slices.Clone(at), plugin.Key(key)))
	}
}

func atMost(n plugin.NestedBlock) string {
	if n.MaxItems == 0 {
		return fmt.Sprintf("at least %d are needed", n.MinItems)
	}
	return fmt.Sprintf("from %d to %d are allowed", n.MinItems, n.MaxItems)
}

func (d *decoded) checkAttribute(a plugin.Attribute, value any, at plugin.Path) {
	if a.Sensitive {
		d.hide(value)
	}
	if a.Deprecation != "" {
		d.say(hcl.DiagWarning, at, fmt.Sprintf("%q is deprecated", a.Name), a.Deprecation)
	}
	switch value := value.(type) {
	case string:
		if len(a.OneOf) > 0 && !slices.Contains(a.OneOf, value) {
			shown := strconv.Quote(value)
			if a.Sensitive {
				shown = "the value"
			}
			d.say(hcl.DiagError, at, fmt.Sprintf("%s is not possible for %q", shown, a.Name),
				"possible are "+strings.Join(a.OneOf, ", "))
		}
	case json.Number:
		n, _ := value.Float64()
		if a.Min != nil && n < *a.Min || a.Max != nil && n > *a.Max {
			d.say(hcl.DiagError, at, fmt.Sprintf("%q is out of range", a.Name), span(a))
		}
	case []any:
		for i, item := range value {
			plain := a
			plain.Deprecation = "" // said once
			d.checkAttribute(plain, item, append(slices.Clone(at), plugin.Index(i)))
		}
	case map[string]any:
		if !strings.HasPrefix(string(a.Type.JSON()), `["map",`) {
			return // what holds for an object holds for none of its attributes
		}
		plain := a
		plain.Deprecation = ""
		for _, key := range slices.Sorted(maps.Keys(value)) {
			d.checkAttribute(plain, value[key], append(slices.Clone(at), plugin.Key(key)))
		}
	}
}

func span(a plugin.Attribute) string {
	number := func(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }
	switch {
	case a.Max == nil:
		return "it must be at least " + number(*a.Min)
	case a.Min == nil:
		return "it must be at most " + number(*a.Max)
	}
	return "it must be from " + number(*a.Min) + " to " + number(*a.Max)
}

// hide remembers every string inside a sensitive value.
func (d *decoded) hide(value any) {
	switch value := value.(type) {
	case string:
		d.hidden = append(d.hidden, secret.New(value))
	case json.Number:
		d.hidden = append(d.hidden, secret.New(value.String()))
	case []any:
		for _, item := range value {
			d.hide(item)
		}
	case map[string]any:
		for _, item := range value {
			d.hide(item)
		}
	}
}
