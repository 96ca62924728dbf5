package conformance

import (
	"errors"
	"fmt"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Violation is a rule broken: what came and what was expected.
type Violation struct{ Got, Want string }

// Error is both on one line.
func (v *Violation) Error() string { return v.Got + ", want " + v.Want }

// seen is what came.
type seen string

func saw(format string, args ...any) seen { return seen(fmt.Sprintf(format, args...)) }

// want makes the violation.
func (s seen) want(format string, args ...any) error {
	return &Violation{Got: string(s), Want: fmt.Sprintf(format, args...)}
}

// wantClass is nil when err is of one of the classes.
func wantClass(what string, err error, classes ...fault.Class) error {
	var names []string
	for _, c := range classes {
		if errors.Is(err, c) {
			return nil
		}
		names = append(names, string(c))
	}
	want := "an error of class " + strings.Join(names, " or ")
	if err == nil {
		return saw("%s succeeded", what).want("%s", want)
	}
	return saw("%s: %v (class %s)", what, err, fault.ClassOf(err)).want("%s", want)
}

// oneLine keeps errors that were joined apart.
func oneLine(err error) string { return strings.Join(strings.Split(err.Error(), "\n"), "; ") }

// broken tells what came and what was expected. A call that failed and should
// not have has nothing else to say than how.
func broken(err error) (got, want string) {
	var v *Violation
	if !errors.As(err, &v) {
		return fmt.Sprintf("%s (class %s)", oneLine(err), fault.ClassOf(err)), "success"
	}
	return strings.Replace(oneLine(err), oneLine(v), v.Got, 1), v.Want
}
