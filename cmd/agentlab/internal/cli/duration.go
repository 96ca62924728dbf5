package cli

import (
	"fmt"
	"strconv"
	"time"
)

// Duration is the value of a flag: "90s", "30m", "2h", or minutes as a plain
// number; from a second to a year.
type Duration time.Duration

const longest = 365 * 24 * time.Hour

// String gives "" for zero, so that help shows no default.
func (d *Duration) String() string {
	if d == nil || *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

// Set implements flag.Value.
func (d *Duration) Set(s string) error {
	text := s
	if _, err := strconv.Atoi(s); err == nil {
		text += "m"
	}
	v, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a duration such as 30m or 2h, or a number of minutes", s)
	case v < time.Second || v > longest:
		return fmt.Errorf("%q is not between one second and a year", s)
	}
	*d = Duration(v)
	return nil
}

// Seconds rounds down.
func (d Duration) Seconds() int64 { return int64(time.Duration(d) / time.Second) }
