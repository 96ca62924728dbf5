package main

import (
	"flag"
	"fmt"
	"strconv"
	"time"
)

// lease is a duration flag: "30m", "2h", or minutes as a plain number.
type lease time.Duration

func (l *lease) String() string {
	if l == nil || *l == 0 {
		return ""
	}
	return time.Duration(*l).String()
}

// Set implements flag.Value.
func (l *lease) Set(s string) error {
	if n, err := strconv.Atoi(s); err == nil {
		s = strconv.Itoa(n) + "m"
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > 365*24*time.Hour {
		return fmt.Errorf("%q is not a duration such as 30m or 2h, or a number of minutes", s)
	}
	if d < time.Second {
		return fmt.Errorf("%s is too short; the least is 1s", d)
	}
	*l = lease(d)
	return nil
}

func (l *lease) seconds() int64 { return int64(time.Duration(*l) / time.Second) }

func leaseFlag(fs *flag.FlagSet, l *lease, name, usage string) { fs.Var(l, name, usage) }
