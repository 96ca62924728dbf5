package conformance

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// SecretsOptions name a bundle that the driver holds.
type SecretsOptions struct {
	Bundle string // valid, with at least env.<EnvName>
	Env    string // name of a variable in it
	Value  string // its value, 6 bytes or more
	Broken string // "" or a bundle that Open refuses
}

// Secrets gives the rules of the secrets contract.
func Secrets(open Open[secrets.Driver], opts SecretsOptions) []Check {
	check := func(name string, fn func(context.Context, secrets.Driver) error) Check {
		return Check{Name: name, Run: func(ctx context.Context) error {
			d, done, err := open(ctx)
			if err != nil {
				return fmt.Errorf("open driver: %w", err)
			}
			defer done()
			return fn(ctx, d)
		}}
	}
	return []Check{
		check("list", opts.list),
		check("open", opts.openBundle),
		check("describe", opts.describe),
		check("absent bundle", opts.absent),
		check("names are no paths", opts.names),
		check("broken bundle", opts.broken),
	}
}

func (o SecretsOptions) list(ctx context.Context, d secrets.Driver) error {
	names, err := d.List(ctx)
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if !slices.Contains(names, o.Bundle) || !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
		return fmt.Errorf("list is %q, want it sorted, each once, with %s", names, o.Bundle)
	}
	return nil
}

func (o SecretsOptions) openBundle(ctx context.Context, d secrets.Driver) error {
	first, err := d.Open(ctx, o.Bundle, "conformance")
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	var doc struct {
		Version int               `json:"version"`
		Env     map[string]string `json:"env"`
	}
	if err := json.Unmarshal([]byte(first.Document.Reveal()), &doc); err != nil {
		return fmt.Errorf("the document is not JSON")
	}
	if doc.Version != 1 || doc.Env[o.Env] != o.Value || first.Version == "" {
		return fmt.Errorf("document has format %d, bundle version %q, and env.%s as expected: %t",
			doc.Version, first.Version, o.Env, doc.Env[o.Env] == o.Value)
	}
	again, err := d.Open(ctx, o.Bundle, "conformance")
	if err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	if again != first {
		return fmt.Errorf("a second open gives something else")
	}
	return nil
}

func (o SecretsOptions) describe(ctx context.Context, d secrets.Driver) error {
	opened, err := d.Open(ctx, o.Bundle, "conformance")
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	desc, err := d.Describe(ctx, o.Bundle)
	if err != nil {
		return fmt.Errorf("describe: %w", err)
	}
	if !slices.Contains(desc.Keys, "env."+o.Env) || !slices.IsSorted(desc.Keys) || desc.Version != opened.Version {
		return fmt.Errorf("keys are %q, version %q, want env.%s among them and %q", desc.Keys, desc.Version, o.Env, opened.Version)
	}
	if strings.Contains(fmt.Sprintf("%+v", desc), o.Value) {
		return fmt.Errorf("the description tells a value")
	}
	return nil
}

func (o SecretsOptions) absent(ctx context.Context, d secrets.Driver) error {
	name := "conformance-" + unique()
	_, err := d.Open(ctx, name, "conformance")
	if err := wantClass("open of an absent bundle", err, fault.NotFound); err != nil {
		return err
	}
	_, err = d.Describe(ctx, name)
	return wantClass("describe of an absent bundle", err, fault.NotFound)
}

func (o SecretsOptions) names(ctx context.Context, d secrets.Driver) error {
	for _, name := range []string{"", ".", "..", "/" + o.Bundle, "../" + o.Bundle, "./" + o.Bundle, "a/../" + o.Bundle, o.Bundle + "/", o.Bundle + "\x00"} {
		_, err := d.Open(ctx, name, "conformance")
		if err := wantClass(fmt.Sprintf("open of %q", name), err, fault.Invalid, fault.NotFound); err != nil {
			return err
		}
		_, err = d.Describe(ctx, name)
		if err := wantClass(fmt.Sprintf("describe of %q", name), err, fault.Invalid, fault.NotFound); err != nil {
			return err
		}
	}
	return nil
}

func (o SecretsOptions) broken(ctx context.Context, d secrets.Driver) error {
	if o.Broken == "" {
		return fmt.Errorf("%w: a bundle that is broken", ErrSkipped)
	}
	_, err := d.Open(ctx, o.Broken, "conformance")
	if err := wantClass("open of a broken bundle", err, fault.Invalid, fault.Denied, fault.Unsupported); err != nil {
		return err
	}
	if strings.Contains(err.Error()+fault.HintOf(err), o.Value) {
		return fmt.Errorf("the error tells a value")
	}
	desc, err := d.Describe(ctx, o.Broken)
	if err != nil || len(desc.Problems) == 0 {
		return fmt.Errorf("describe of a broken bundle gives %d problems and error %v, want a problem and no error", len(desc.Problems), err)
	}
	if strings.Contains(fmt.Sprintf("%+v", desc), o.Value) {
		return fmt.Errorf("the description tells a value")
	}
	return nil
}
