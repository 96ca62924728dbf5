package plugin

import (
	"bytes"
	"encoding/json"
	"io"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Decode reads a configuration into v, strictly: a key that v has no field for
// and anything after the object are fault.Invalid, for then schema and program
// do not fit together. Values never appear in the error.
func Decode(cfg json.RawMessage, v any) error {
	dec := json.NewDecoder(bytes.NewReader(cfg))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fault.New(fault.Invalid, "decode configuration: %s", describe(err))
	}
	if _, err := dec.Token(); err != io.EOF {
		return fault.New(fault.Invalid, "decode configuration: text after its end")
	}
	return nil
}

// describe gives err without the value that encoding/json quotes.
func describe(err error) string {
	switch e := err.(type) { //nolint:errorlint // encoding/json returns these bare
	case *json.UnmarshalTypeError:
		return "attribute " + e.Field + " does not fit " + e.Type.String()
	case *json.SyntaxError:
		return "not JSON"
	}
	return err.Error()
}
