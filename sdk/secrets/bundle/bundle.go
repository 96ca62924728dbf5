package bundle

import (
	"encoding/json"
	"slices"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// Parsed is a document that was read, perhaps with errors.
type Parsed struct {
	Keys     []string // paths without values, sorted: "env.OPENAI_API_KEY", "git.token", "ssh.keys.anna"
	Errors   []string // each with its path and line; empty for a valid document
	Warnings []string // what works worse than it could
	doc      map[string]any
	err      error
}

// Inspect reads a document as far as it can be read. It fails with
// fault.Invalid only when the text is no document at all.
func Inspect(src []byte) (Parsed, error) {
	tree, err := parseTree(src)
	if err != nil {
		return Parsed{}, err
	}
	r := &reader{}
	doc, _ := r.node(tree, root, "").(map[string]any)
	if doc != nil {
		r.semantics(doc)
	}
	slices.Sort(r.keys)
	return Parsed{Keys: r.keys, Errors: r.errs, Warnings: r.warnings, doc: doc, err: r.err()}, nil
}

// Parse reads a document and gives it as JSON, with every scalar of env, git,
// ssh and tailscale as text. A document that breaks the schema is
// fault.Invalid; the message names the path of the first mistake.
func Parse(src []byte) (secret.Value, error) {
	p, err := Inspect(src)
	if err != nil {
		return secret.Value{}, err
	}
	if p.err != nil {
		return secret.Value{}, p.err
	}
	out, err := json.Marshal(p.doc)
	if err != nil {
		return secret.Value{}, fault.New(fault.Invalid, "bundle document holds something that JSON cannot say")
	}
	return secret.New(string(out)), nil
}

// Validate tells why Parse would refuse the document, nil when it would not.
func Validate(src []byte) error {
	_, err := Parse(src)
	return err
}
