package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secret"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// SecretsOptions name a bundle that the driver holds.
type SecretsOptions struct {
	Bundle string // valid, with a variable in env; "": the first that is so
	Env    string // name of a variable in it; "": the first
	Value  string // its value, 6 bytes or more; "": whatever it is
	Broken string // a bundle that Open refuses; "": none
}

// Secrets checks a keeper of secrets by its contract.
func Secrets(open Open[secrets.Driver], opts SecretsOptions) []Check {
	return bind(plugin.Secrets, secretsRules, func(ctx context.Context, _ Rule, fn func(*keeper, context.Context) error) error {
		d, done, err := open(ctx)
		if err != nil {
			return fmt.Errorf("open driver: %w", err)
		}
		defer done()
		return fn(&keeper{opts, d}, ctx)
	})
}

var secretsRules = []ruled[*keeper]{
	reads("secrets.list", 2, "lists the bundles",
		"Names of the bundles that exist, sorted. Decrypts nothing.", (*keeper).list),
	reads("secrets.open", 2, "opens a bundle twice",
		"Decrypted document as JSON, with its version.", (*keeper).open),
	reads("secrets.describe", 2, "describes a bundle and looks for values in the answer",
		"Names of keys, recipients, version; no values.", (*keeper).describe),
	reads("secrets.absent", 2, "opens and describes a bundle that is not there",
		"NOT_FOUND: no such bundle", (*keeper).absent),
	reads("secrets.names", 2, "opens names that are paths",
		"The name of a bundle is never a path.", (*keeper).names),
	reads("secrets.broken", 2, "opens and describes a bundle that is broken, where one is named",
		"INVALID: not a bundle.", (*keeper).broken),
}

// keeper is the state of one check.
type keeper struct {
	SecretsOptions
	secrets.Driver
}

// choose takes the first bundle that is whole, where none is named, and its
// first variable.
func (o *keeper) choose(ctx context.Context) error {
	if o.Bundle == "" {
		names, err := o.List(ctx)
		if err != nil {
			return fmt.Errorf("list: %w", err)
		}
		for _, name := range names {
			desc, err := o.Describe(ctx, name)
			if err == nil && len(desc.Problems) == 0 && variable(desc) != "" {
				o.Bundle = name
				break
			}
		}
	}
	if o.Bundle == "" {
		return fmt.Errorf("%w: %w", ErrSkipped, errNoBundle)
	}
	if o.Env == "" {
		desc, err := o.Describe(ctx, o.Bundle)
		if err != nil {
			return fmt.Errorf("describe: %w", err)
		}
		o.Env = variable(desc)
	}
	return nil
}

var errNoBundle = errors.New("a bundle that is whole and has a variable in env")

func variable(desc secrets.Description) string {
	for _, key := range desc.Keys {
		if name, ok := strings.CutPrefix(key, "env."); ok {
			return name
		}
	}
	return ""
}

func (o *keeper) list(ctx context.Context) error {
	names, err := o.List(ctx)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if o.Bundle != "" && !slices.Contains(names, o.Bundle) || !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		return saw("list is %q", names).want("it sorted, each once, with %s", o.Bundle)
	}
	return nil
}

func (o *keeper) open(ctx context.Context) error {
	err := o.choose(ctx)
	if errors.Is(err, errNoBundle) {
		return saw("no bundle is whole and has a variable in env, so nothing of Open was checked").want("one: make it, or name it with --set bundle=NAME (SecretsOptions.Bundle)")
	}
	if err != nil {
		return err
	}
	first, err := o.Open(ctx, o.Bundle, "conformance")
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	var doc struct {
		Version int               `json:"version"`
		Env     map[string]string `json:"env"`
	}
	if err := json.Unmarshal([]byte(first.Document.Reveal()), &doc); err != nil {
		return saw("the document is not JSON").want("a bundle of format version 1 as JSON")
	}
	if doc.Version != 1 || first.Version == "" {
		return saw("the document has format version %d, the bundle version %q", doc.Version, first.Version).want("format version 1 and any version")
	}
	if value, ok := doc.Env[o.Env]; !ok || o.Value != "" && value != o.Value {
		return saw("env.%s is there: %t, with another value: %t", o.Env, ok, ok).want("it with the value that the suite was told")
	}
	again, err := o.Open(ctx, o.Bundle, "conformance")
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	if again != first {
		return saw("a second open gives something else").want("the same document and version")
	}
	return nil
}

func (o *keeper) describe(ctx context.Context) error {
	if err := o.choose(ctx); err != nil {
		return err
	}
	opened, err := o.Open(ctx, o.Bundle, "conformance")
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	desc, err := o.Describe(ctx, o.Bundle)
	if err != nil {
		return fmt.Errorf("describe: %w", err)
	}
	if !slices.Contains(desc.Keys, "env."+o.Env) || !slices.IsSorted(desc.Keys) || desc.Version != opened.Version {
		return saw("keys are %q, version %q", desc.Keys, desc.Version).want("env.%s among them and %q", o.Env, opened.Version)
	}
	var doc struct {
		Env map[string]string `json:"env"`
	}
	if err := json.Unmarshal([]byte(opened.Document.Reveal()), &doc); err != nil {
		return saw("the document is not JSON").want("a bundle of format version 1 as JSON")
	}
	for _, value := range doc.Env {
		if len(value) >= secret.MinLength && strings.Contains(fmt.Sprintf("%+v", desc), value) {
			return saw("the description tells a value").want("names only")
		}
	}
	return nil
}

func (o *keeper) absent(ctx context.Context) error {
	name := "conformance-" + unique()
	_, err := o.Open(ctx, name, "conformance")
	if err := wantClass("open of an absent bundle", err, fault.NotFound); err != nil {
		return err
	}
	_, err = o.Describe(ctx, name)
	return wantClass("describe of an absent bundle", err, fault.NotFound)
}

func (o *keeper) names(ctx context.Context) error {
	if err := o.choose(ctx); err != nil {
		return err
	}
	for _, name := range []string{"", ".", "..", "/" + o.Bundle, "../" + o.Bundle, "./" + o.Bundle, "a/../" + o.Bundle, o.Bundle + "/", o.Bundle + "\x00"} {
		_, err := o.Open(ctx, name, "conformance")
		if err := wantClass(fmt.Sprintf("open of %q", name), err, fault.Invalid, fault.NotFound); err != nil {
			return err
		}
		_, err = o.Describe(ctx, name)
		if err := wantClass(fmt.Sprintf("describe of %q", name), err, fault.Invalid, fault.NotFound); err != nil {
			return err
		}
	}
	return nil
}

func (o *keeper) broken(ctx context.Context) error {
	if o.Broken == "" {
		return fmt.Errorf("%w: a bundle that is broken", ErrSkipped)
	}
	_, err := o.Open(ctx, o.Broken, "conformance")
	if err := wantClass("open of a broken bundle", err, fault.Invalid, fault.Denied, fault.Unsupported); err != nil {
		return err
	}
	if o.tells(err.Error() + fault.HintOf(err)) {
		return saw("the error tells a value").want("names only")
	}
	desc, err := o.Describe(ctx, o.Broken)
	if err != nil || len(desc.Problems) == 0 {
		return saw("describe of a broken bundle gives %d problems and error %v", len(desc.Problems), err).want("a problem and no error")
	}
	if o.tells(fmt.Sprintf("%+v", desc)) {
		return saw("the description tells a value").want("names only")
	}
	return nil
}

// tells reports whether a text has the value that must not be seen.
func (o *keeper) tells(text string) bool { return o.Value != "" && strings.Contains(text, o.Value) }
