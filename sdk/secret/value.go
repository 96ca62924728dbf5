package secret

import (
	"fmt"
	"log/slog"
)

// Mask stands where a secret was.
const Mask = "[REDACTED]"

// Value is a secret. Every way of printing it gives Mask; Reveal is the only
// way out, so a search for Reveal finds each place where one leaves.
type Value struct{ s string }

// New wraps s.
func New(s string) Value { return Value{s} }

// Reveal returns what is inside.
func (v Value) Reveal() string { return v.s }

// Empty reports whether nothing is inside.
func (v Value) Empty() bool { return v.s == "" }

// String gives Mask, or "" for an empty value.
func (v Value) String() string {
	if v.s == "" {
		return ""
	}
	return Mask
}

// Format covers every verb of fmt, %#v and %x included.
func (v Value) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(v.String())) }

// GoString gives Mask.
func (v Value) GoString() string { return v.String() }

// MarshalText gives Mask, for JSON and everything else that asks for text.
func (v Value) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText takes the value in.
func (v *Value) UnmarshalText(b []byte) error {
	v.s = string(b)
	return nil
}

// LogValue gives Mask to log/slog.
func (v Value) LogValue() slog.Value { return slog.StringValue(v.String()) }
