package convert

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"go.yaml.in/yaml/v3"

	"github.com/agentlab/agentlab/core/config"
)

// maxSource is more than any configuration has.
const maxSource = 1 << 20

// Kind is what a file is.
type Kind string

// The kinds. A part is a piece of a profile, without its name and template, as
// documentation shows it.
const (
	Config  Kind = "config"
	Profile Kind = "profile"
	Part    Kind = "part of a profile"
)

// Result is a converted file.
type Result struct {
	Kind Kind
	HCL  []byte // nil when the diagnostics hold an error
}

// YAML converts the text of a file. The name is for diagnostics, which give
// places in the YAML.
func YAML(src []byte, name string) (Result, config.Diagnostics) {
	c := &converter{file: name, lines: strings.Split(string(src), "\n")}
	if len(src) > maxSource {
		c.fail(0, "", "is larger than %d KiB", maxSource>>10)
		return Result{}, c.diags
	}
	docs := c.parse(src)
	if c.diags.HasErrors() {
		return Result{}, c.diags
	}
	kind := c.kindOf(docs)
	for i, doc := range docs {
		c.document(kind, doc, i)
	}
	c.keepLost(docs)
	out := hclwrite.Format(c.out.Bytes())
	if kind == Config || !c.diags.HasErrors() { // a profile that lacks what is wrong would have errors of its own
		c.load(kind, out)
	}
	if kind == Part {
		c.warn(docs[0].Content[0].Line, `put it into a block: profile "NAME" { … }, with a template`, "is only a part of a profile: no file of its own")
	}
	slices.SortStableFunc(c.diags, func(a, b *hcl.Diagnostic) int { return cmp.Compare(a.Subject.Start.Line, b.Subject.Start.Line) })
	if c.diags.HasErrors() {
		return Result{}, c.diags
	}
	return Result{Kind: kind, HCL: append([]byte{}, out...)}, c.diags // not nil, be it empty
}

type converter struct {
	file  string
	lines []string // of the YAML
	diags config.Diagnostics

	out     bytes.Buffer
	from    []int // line of the YAML for each line of out
	plugins []*pluginBlock
}

func (c *converter) fail(line int, how, format string, args ...any) {
	c.diags = c.diags.Fail(c.at(line), how, format, args...)
}

func (c *converter) warn(line int, how, format string, args ...any) {
	c.diags = c.diags.Warn(c.at(line), how, format, args...)
}

func (c *converter) at(line int) hcl.Range {
	return hcl.Range{Filename: c.file, Start: hcl.Pos{Line: line}}
}

var errorLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// parse gives the mappings of all documents that are not empty.
func (c *converter) parse(src []byte) []*yaml.Node {
	var docs []*yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(src)); ; {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			found := errorLine.FindStringSubmatch(err.Error())
			line, text := 0, err.Error()
			if found != nil {
				line, _ = strconv.Atoi(found[1])
				text = strings.TrimPrefix(text, found[0])
			}
			c.fail(line, "", "is not YAML: %s", text)
			return nil
		}
		if len(doc.Content) != 1 || doc.Content[0].ShortTag() == "!!null" {
			continue
		}
		if doc.Content[0].Kind != yaml.MappingNode {
			c.fail(doc.Content[0].Line, "", "is neither a configuration nor a profile; both are keys with values")
			continue
		}
		docs = append(docs, &doc)
	}
}

// kindOf tells by the keys which are most what the documents are.
func (c *converter) kindOf(docs []*yaml.Node) Kind {
	profile := config.ProfileSchema()[0].Fields
	score, whole := 0, false
	for _, doc := range docs {
		for _, key := range keysOf(doc.Content[0]) {
			_, daemons := config.Find(config.Schema(), key)
			_, plugins := config.PluginKey(key)
			_, profiles := config.Find(profile, key)
			if daemons || plugins {
				score--
			}
			if profiles || key == nameKey {
				score++
			}
			whole = whole || slices.Contains([]string{nameKey, "template", "template_vmid"}, key)
		}
	}
	switch {
	case score > 0 && whole:
		return Profile
	case score > 0:
		return Part
	case score == 0 && filepath.Base(filepath.Dir(c.file)) == "profiles":
		return Profile
	}
	return Config
}

func keysOf(m *yaml.Node) []string {
	var out []string
	for i := 0; i+1 < len(m.Content); i += 2 {
		out = append(out, m.Content[i].Value)
	}
	return out
}

// load reads the result as the daemon would. What it finds wrong are values, so
// it is told at their lines of the YAML.
func (c *converter) load(kind Kind, out []byte) {
	const head = "profile \"part\" {\n  template = \"none\"\n"
	var found config.Diagnostics
	before := 0
	switch kind {
	case Config:
		_, found = config.Parse(out, "")
	case Profile:
		_, found = config.ParseProfiles(out, "")
	case Part:
		_, found = config.ParseProfiles(slices.Concat([]byte(head), out, []byte("\n}\n")), "")
		before = strings.Count(head, "\n")
	}
	for _, d := range found {
		line := 0
		if d.Subject != nil {
			if n := d.Subject.Start.Line - 1 - before; n >= 0 && n < len(c.from) {
				line = c.from[n]
			}
		}
		at := c.at(line)
		d.Subject = &at
		c.diags = append(c.diags, d)
	}
}
