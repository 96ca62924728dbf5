package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// errIncomplete is a configuration without what the schema requires.
var errIncomplete = errors.New("the plugin's configuration lacks what its schema requires")

// whole is the configuration as a host would send it: by the schema, with
// defaults filled in.
func (b Binary) whole(ctx context.Context, base plugin.Base) (json.RawMessage, error) {
	schema, err := base.Schema(ctx)
	if err != nil {
		return nil, fmt.Errorf("get schema: %w", err)
	}
	fields := map[string]any{}
	if len(b.Config) > 0 {
		dec := json.NewDecoder(bytes.NewReader(b.Config))
		dec.UseNumber() // sizes in bytes do not fit a float
		if err := dec.Decode(&fields); err != nil {
			return nil, fault.New(fault.Invalid, "the plugin's configuration is not a JSON object")
		}
	}
	if missing := complete(schema.Block, fields, ""); len(missing) > 0 {
		return nil, fault.New(fault.Invalid, "%w: %s", errIncomplete, strings.Join(missing, ", ")).
			WithHint("give a JSON object with what the plugin's config block would hold: --config FILE")
	}
	return json.Marshal(fields)
}

// complete fills in defaults, leaves out what is null, and gives the paths of
// what is required and absent.
func complete(b plugin.Block, fields map[string]any, at string) (missing []string) {
	for _, a := range b.Attributes {
		if fields[a.Name] != nil {
			continue
		}
		delete(fields, a.Name)
		switch def, ok := a.Default.(json.RawMessage); {
		case ok && string(def) != "null":
			fields[a.Name] = def
		case a.Required:
			missing = append(missing, at+a.Name)
		}
	}
	for _, n := range b.Blocks {
		missing = append(missing, completeNested(n, fields, at+n.Name)...)
	}
	return missing
}

func completeNested(n plugin.NestedBlock, fields map[string]any, at string) (missing []string) {
	inner := func(value any, at string) {
		if object, ok := value.(map[string]any); ok {
			missing = append(missing, complete(n.Block, object, at+".")...)
		}
	}
	switch value := fields[n.Name].(type) {
	case nil:
		delete(fields, n.Name)
		switch {
		case n.MinItems > 0:
			missing = append(missing, at)
		case n.Nesting == plugin.NestingList:
			fields[n.Name] = []any{}
		case n.Nesting == plugin.NestingMap:
			fields[n.Name] = map[string]any{}
		}
	case []any:
		for i, item := range value {
			inner(item, fmt.Sprintf("%s[%d]", at, i))
		}
	case map[string]any:
		if n.Nesting == plugin.NestingSingle {
			inner(value, at)
			break
		}
		for key, item := range value {
			inner(item, at+"."+key)
		}
	}
	return missing
}
