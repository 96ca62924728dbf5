package cli

import "strings"

// List is a flag that may be repeated.
type List []string

// String joins what was given.
func (l *List) String() string { return strings.Join(*l, " ") }

// Set adds one.
func (l *List) Set(s string) error {
	*l = append(*l, s)
	return nil
}
