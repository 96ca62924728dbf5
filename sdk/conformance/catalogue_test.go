package conformance_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/sdk/conformance"
)

var update = flag.Bool("update", false, "write the checks into the vendor guide anew")

const (
	guide = "../../docs/vendor-guide.md"
	begin = "<!-- checks: written by go test ./sdk/conformance -run Guide -update -->\n"
	end   = "<!-- end of checks -->"
)

var checkID = regexp.MustCompile(`^[a-z]+\.[a-z]+(-[a-z]+)*$`)

// TestGuide wants every check in the vendor guide.
func TestGuide(t *testing.T) {
	before, _, after := readGuide(t)
	var b strings.Builder
	group := ""
	for _, r := range conformance.Catalogue() {
		title := fmt.Sprintf("Level %d, %s", r.Level, strings.Split(r.ID, ".")[0])
		if title != group {
			fmt.Fprintf(&b, "\n**%s**\n\n| check | what it does | sentence |\n|---|---|---|\n", title)
			group = title
		}
		mark := ""
		if r.Changes {
			mark = " *"
		}
		fmt.Fprintf(&b, "| `%s`%s | %s | %s |\n", r.ID, mark, r.About, r.Contract)
	}
	b.WriteString("\n\\* needs `--destructive`\n\n")
	if *update {
		if err := os.WriteFile(guide, []byte(before+begin+b.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, table, _ := readGuide(t); table != b.String() {
		t.Error("docs/vendor-guide.md is old; run: go test ./sdk/conformance -run Guide -update")
	}
}

func readGuide(t *testing.T) (before, table, after string) {
	t.Helper()
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks %q or %q", guide, begin, end)
	}
	return before, table, after
}

// TestSentencesAreOfTheContract finds each sentence where it is said to be, and
// no ID twice.
func TestSentencesAreOfTheContract(t *testing.T) {
	before, _, _ := readGuide(t)
	text := before
	for _, pattern := range []string{"../../proto/agentlab/*/v1/*.proto", "../*/driver.go", "../*/doc.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("nothing is like %s: %v", pattern, err)
		}
		for _, f := range files {
			content, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			text += "\n" + string(content)
		}
	}
	text = plain(text)
	var ids []string
	for _, r := range conformance.Catalogue() {
		if !strings.Contains(text, plain(r.Contract)) {
			t.Errorf("%s: no contract says %q", r.ID, r.Contract)
		}
		if !checkID.MatchString(r.ID) || r.About == "" || r.Level < 1 || r.Level > 3 {
			t.Errorf("%+v", r)
		}
		if slices.Contains(ids, r.ID) {
			t.Errorf("%s is there twice", r.ID)
		}
		ids = append(ids, r.ID)
	}
	if len(ids) < 70 {
		t.Errorf("only %d checks", len(ids))
	}
}

// plain is text without line breaks, comment marks and list marks.
func plain(s string) string {
	var words []string
	for line := range strings.Lines(s) {
		words = append(words, strings.Fields(strings.TrimLeft(line, " \t/-"))...)
	}
	return strings.Join(words, " ")
}
