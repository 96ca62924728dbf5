package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/agentlab/agentlab/sdk/fault"
)

// MaxSize is the largest document in bytes.
const MaxSize = 1 << 20

// maxDepth bounds nesting, so that a hostile document cannot exhaust the stack.
const maxDepth = 64

// parseTree reads YAML or JSON into one tree.
func parseTree(src []byte) (*yaml.Node, error) {
	if len(src) > MaxSize {
		return nil, fault.New(fault.Invalid, "bundle document is larger than %d bytes", MaxSize)
	}
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))
	// JSON has its own reader: YAML's refuses tabs and surrogate pairs.
	if trimmed := bytes.TrimSpace(src); len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(trimmed) {
		return parseJSON(trimmed)
	}
	return parseYAML(src)
}

var lineNumber = regexp.MustCompile(`line (\d+)`)

// parseYAML gives only the line of an error: the parser's own texts quote the
// document.
func parseYAML(src []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fault.New(fault.Invalid, "bundle document is empty")
		}
		at := ""
		if m := lineNumber.FindStringSubmatch(err.Error()); m != nil {
			at = " (line " + m[1] + ")"
		}
		return nil, fault.New(fault.Invalid, "bundle document is neither YAML nor JSON%s", at)
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, "bundle file holds more than one document")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, fault.New(fault.Invalid, "bundle document is empty")
	}
	return doc.Content[0], nil
}

// parseJSON makes the tree that YAML would have made.
func parseJSON(src []byte) (*yaml.Node, error) {
	dec := json.NewDecoder(bytes.NewReader(src))
	dec.UseNumber()
	return jsonNode(src, dec, 0)
}

func jsonNode(src []byte, dec *json.Decoder, depth int) (*yaml.Node, error) {
	line := 1 + bytes.Count(src[:dec.InputOffset()], []byte("\n"))
	tok, err := dec.Token()
	if err != nil || depth > maxDepth {
		return nil, fault.New(fault.Invalid, "bundle document is not JSON that can be read (line %d)", line)
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: line}
	switch v := tok.(type) {
	case json.Delim:
		n.Kind = yaml.MappingNode
		if v == '[' {
			n.Kind = yaml.SequenceNode
		}
		for dec.More() {
			child, err := jsonNode(src, dec, depth+1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		if _, err := dec.Token(); err != nil {
			return nil, fault.New(fault.Invalid, "bundle document is not JSON that can be read (line %d)", line)
		}
	case string:
		n.Tag, n.Value = "!!str", v
	case json.Number:
		n.Tag, n.Value = "!!float", v.String()
		if _, err := strconv.ParseInt(n.Value, 10, 64); err == nil {
			n.Tag = "!!int"
		}
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(v)
	case nil:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}
