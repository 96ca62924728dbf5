package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Decode reads a configuration into v, strictly: a key that v has no field for
// and anything after the object are fault.Invalid, for then schema and program
// do not fit together. Values never appear in the error; Remarks tells its place.
func Decode(cfg json.RawMessage, v any) error {
	dec := json.NewDecoder(bytes.NewReader(cfg))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fault.New(fault.Invalid, "decode configuration: %w", describe(err, cfg))
	}
	if _, err := dec.Token(); err != io.EOF {
		return fault.New(fault.Invalid, "decode configuration: text after its end")
	}
	return nil
}

// Remarks is an error of Decode as the result of a Plugin's Validate: about the attribute
// whose value does not fit, where it is that.
func Remarks(err error) []Diagnostic {
	var unfit unfitError
	if !errors.As(err, &unfit) {
		return []Diagnostic{{Summary: err.Error()}}
	}
	return []Diagnostic{{Summary: unfit.Error(), Path: unfit.at}}
}

// place leads to the value that ends at the offset. Of the names on the way there the
// fields, by dots, are attributes and the others keys.
func place(cfg json.RawMessage, fields string, end int64) Path {
	if fields == "" {
		return nil
	}
	names := strings.Split(fields, ".")
	dec := json.NewDecoder(bytes.NewReader(cfg))
	if at, ok := walkTo(dec, end, names); ok && len(at) >= len(names) {
		return at
	}
	var at Path
	for _, name := range names {
		at = append(at, Attr(name))
	}
	return at
}

func walkTo(dec *json.Decoder, end int64, names []string) (Path, bool) {
	token, err := dec.Token()
	if err != nil || dec.InputOffset() >= end {
		return nil, err == nil
	}
	if token != json.Delim('{') && token != json.Delim('[') {
		return nil, false
	}
	for i := 0; dec.More(); i++ {
		step, rest := Step(Index(i)), names
		if token == json.Delim('{') {
			key, _ := dec.Token()
			name, _ := key.(string)
			step = Key(name)
			if len(names) > 0 && names[0] == name {
				step, rest = Attr(name), names[1:]
			}
		}
		if at, ok := walkTo(dec, end, rest); ok {
			return append(Path{step}, at...), true
		}
	}
	_, err = dec.Token() // the end of it
	return nil, err == nil && dec.InputOffset() >= end
}

// unfitError is about a value that its field cannot hold.
type unfitError struct {
	field string // with those that it is in, by dots
	kind  reflect.Kind
	at    Path
}

func (e unfitError) Error() string {
	switch e.kind {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("%q must be a whole number", e.field)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("%q must be a whole number, 0 or more", e.field)
	}
	return fmt.Sprintf("the value of %q does not fit its type", e.field)
}

// describe gives err without the value that encoding/json quotes.
func describe(err error, cfg json.RawMessage) error {
	switch e := err.(type) { //nolint:errorlint // encoding/json returns these bare
	case *json.UnmarshalTypeError:
		return unfitError{e.Field, e.Type.Kind(), place(cfg, e.Field, e.Offset)}
	case *json.SyntaxError:
		return errors.New("not JSON")
	}
	return err
}
