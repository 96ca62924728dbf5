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
		return fault.New(fault.Invalid, "decode configuration: %w", describe(err))
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
	attr, _, _ := strings.Cut(unfit.field, ".")
	return []Diagnostic{{Summary: unfit.Error(), Path: Path{Attr(attr)}}}
}

// unfitError is about a value that its field cannot hold.
type unfitError struct {
	field string // with those that it is in, by dots
	kind  reflect.Kind
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
func describe(err error) error {
	switch e := err.(type) { //nolint:errorlint // encoding/json returns these bare
	case *json.UnmarshalTypeError:
		return unfitError{e.Field, e.Type.Kind()}
	case *json.SyntaxError:
		return errors.New("not JSON")
	}
	return err
}
