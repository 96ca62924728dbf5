package cli

import (
	"fmt"
	"strconv"
)

// Count is the value of a flag: how many, from one to Most. Without the flag it
// stays 0, which is for the command to read.
type Count struct {
	N    int
	Most int // 0: no limit
}

// String gives "" for none, so that help shows no default.
func (c *Count) String() string {
	if c == nil || c.N == 0 {
		return ""
	}
	return strconv.Itoa(c.N)
}

// Set implements flag.Value.
func (c *Count) Set(s string) error {
	n, err := strconv.Atoi(s)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a number", s)
	case c.Most > 0 && (n < 1 || n > c.Most):
		return fmt.Errorf("%d is not between 1 and %d", n, c.Most)
	case n < 1:
		return fmt.Errorf("%d is not above 0", n)
	}
	c.N = n
	return nil
}
