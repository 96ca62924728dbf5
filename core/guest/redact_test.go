package guest

import (
	"strings"
	"testing"

	"github.com/agentlab/agentlab/sdk/secret"
)

func FuzzMaskLines(f *testing.F) {
	const value = "s3cret-value"
	f.Add([]byte("a\n" + value + "\nb"))
	f.Add([]byte(value))
	f.Add([]byte("\n\n" + value + value + "\n"))
	red := secret.NewRedactor(secret.New(value))
	f.Fuzz(func(t *testing.T, in []byte) {
		out := maskLines(red, in)
		if len(out) != len(in) || red.Contains(out) || strings.Count(string(out), "\n") != strings.Count(string(in), "\n") {
			t.Errorf("%q became %q", in, out)
		}
	})
}
