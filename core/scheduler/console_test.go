package scheduler

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// A guest's console has no limit to what it prints; an error has.
func TestConsoleTail(t *testing.T) {
	tests := []struct {
		name, in, want string
	}{
		{"plain", "one\ntwo\tx\n\n", "one\ntwo\tx"},
		{"control and format characters", "a\x1b[2J\u202eb\u200bc\u009bd\r\n\xffe", "a[2Jbcd\ne"},
		{"lines", strings.Repeat("old\n", 50) + strings.Repeat("new\n", consoleLines), strings.TrimSpace(strings.Repeat("new\n", consoleLines))},
		{"bytes", "old" + strings.Repeat("y", consoleTail), strings.Repeat("y", consoleTail)},
		{"a cut character", strings.Repeat("é", consoleTail/2) + "z", strings.Repeat("é", consoleTail/2-1) + "z"},
		{"nothing to see", "\x00\x1b\u202e\n", ""},
	}
	for _, test := range tests {
		if got := printable([]byte(test.in)); got != test.want || !utf8.ValidString(got) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
