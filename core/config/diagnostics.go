package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Diagnostics are errors and warnings about files, each with its place.
type Diagnostics hcl.Diagnostics

// HasErrors reports whether any of them is an error.
func (d Diagnostics) HasErrors() bool { return hcl.Diagnostics(d).HasErrors() }

// WarningMark stands before the text of a warning.
const WarningMark = "warning: "

// Lines gives one "file:line: text" per diagnostic; warnings say so.
func (d Diagnostics) Lines() []string {
	var out []string
	for _, x := range d {
		out = append(out, line(x))
	}
	return out
}

// Warnings gives the lines of the warnings only.
func (d Diagnostics) Warnings() []string {
	var out []string
	for _, x := range d {
		if x.Severity == hcl.DiagWarning {
			out = append(out, line(x))
		}
	}
	return out
}

// Error joins the lines.
func (d Diagnostics) Error() string { return strings.Join(d.Lines(), "\n") }

// Problem is one diagnostic taken apart.
type Problem struct {
	Severity string `json:"severity" enum:"error,warning"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty" doc:"none: the file as a whole"`
	Column   int    `json:"column,omitempty"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty" doc:"what to write or to do instead"`
}

// Problems takes the diagnostics apart.
func (d Diagnostics) Problems() []Problem {
	var out []Problem
	for _, x := range d {
		out = append(out, problem(x))
	}
	return out
}

// hint is what a diagnostic carries beside its text.
type hint string

// Warn adds a warning; how, the way to mend it, may be "".
func (d Diagnostics) Warn(at hcl.Range, how, format string, args ...any) Diagnostics {
	return d.add(hcl.DiagWarning, at, fmt.Sprintf(format, args...), how)
}

// Fail adds an error; how, the way to mend it, may be "".
func (d Diagnostics) Fail(at hcl.Range, how, format string, args ...any) Diagnostics {
	return d.add(hcl.DiagError, at, fmt.Sprintf(format, args...), how)
}

func (d Diagnostics) add(sev hcl.DiagnosticSeverity, at hcl.Range, text, how string) Diagnostics {
	return append(d, &hcl.Diagnostic{Severity: sev, Summary: text, Subject: &at, Extra: hint(how)})
}

// behind adds further diagnostics, but none about a line that has an error
// already: it would only be its echo.
func (d Diagnostics) behind(further Diagnostics) Diagnostics {
	wrong := map[hcl.Range]bool{}
	for _, x := range d {
		if x.Severity == hcl.DiagError && x.Subject != nil && x.Subject.Start.Line > 0 {
			wrong[lineOf(*x.Subject)] = true
		}
	}
	return append(d, slices.DeleteFunc(further, func(x *hcl.Diagnostic) bool {
		return x.Subject != nil && wrong[lineOf(*x.Subject)]
	})...)
}

// news are the further diagnostics but those about a key of which an error has
// been told: it has no value, so what is said of that is an echo.
func (d Diagnostics) news(further Diagnostics) Diagnostics {
	type key struct {
		at   hcl.Range
		name string
	}
	of := func(x *hcl.Diagnostic) key {
		name, _, ok := strings.Cut(x.Summary, ": ")
		if x.Subject == nil || !ok {
			return key{}
		}
		return key{lineOf(*x.Subject), name}
	}
	told := map[key]bool{}
	for _, x := range d {
		told[of(x)] = x.Severity == hcl.DiagError
	}
	return slices.DeleteFunc(further, func(x *hcl.Diagnostic) bool { return of(x) != key{} && told[of(x)] })
}

func lineOf(r hcl.Range) hcl.Range {
	return hcl.Range{Filename: r.Filename, Start: hcl.Pos{Line: r.Start.Line}}
}

// errorsIn reports whether an error is about something in the range.
func (d Diagnostics) errorsIn(block hcl.Range) bool {
	return slices.ContainsFunc(d, func(x *hcl.Diagnostic) bool {
		return x.Severity == hcl.DiagError && x.Subject != nil && block.ContainsPos(x.Subject.Start)
	})
}

// errorsOutside reports whether an error is about something in none of the
// blocks.
func (d Diagnostics) errorsOutside(blocks hclsyntax.Blocks) bool {
	return slices.ContainsFunc(d, func(x *hcl.Diagnostic) bool {
		return x.Severity == hcl.DiagError && !slices.ContainsFunc(blocks, func(b *hclsyntax.Block) bool {
			return x.Subject != nil && b.Range().ContainsPos(x.Subject.Start)
		})
	})
}

func problem(d *hcl.Diagnostic) Problem {
	p := Problem{Severity: "error", Message: d.Summary}
	if d.Severity == hcl.DiagWarning {
		p.Severity = "warning"
	}
	if d.Subject != nil {
		p.File, p.Line, p.Column = d.Subject.Filename, d.Subject.Start.Line, d.Subject.Start.Column
	}
	detail, meant, ok := strings.Cut(d.Detail, "Did you mean ") // the words of hclsyntax
	if ok {
		p.Hint = "did you mean " + meant
	}
	if detail = strings.TrimSpace(detail); detail != "" {
		p.Message += ": " + detail
	}
	if how, ok := d.Extra.(hint); ok {
		p.Hint = string(how)
	}
	return p
}

// Place is "file:line", the file alone where there is no line.
func (p Problem) Place() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// String is "file:line: message; hint"; a warning says so.
func (p Problem) String() string {
	text := p.Message
	if p.Severity == "warning" {
		text = WarningMark + text
	}
	if p.File != "" {
		text = p.Place() + ": " + text
	}
	if p.Hint != "" {
		text = strings.TrimSuffix(text, ".") + "; " + p.Hint
	}
	return text
}

func line(d *hcl.Diagnostic) string { return problem(d).String() }

// checker collects what is wrong with decoded values and finds their places.
type checker struct {
	body  *hclsyntax.Body
	file  string
	diags Diagnostics
}

func (c *checker) at(name string) hcl.Range {
	if c.body != nil {
		if a, ok := c.body.Attributes[name]; ok {
			return a.SrcRange
		}
	}
	return hcl.Range{Filename: c.file}
}

func (c *checker) fail(name, format string, args ...any) {
	c.failAt(c.at(name), name+": "+format, args...)
}

func (c *checker) failAt(at hcl.Range, format string, args ...any) {
	c.diags = c.diags.Fail(at, "", format, args...)
}

func (c *checker) warn(name, format string, args ...any) {
	c.diags = c.diags.Warn(c.at(name), "", name+": "+format, args...)
}

// has reports whether the body sets the key, be it to a wrong value.
func (c *checker) has(name string) bool {
	return c.body != nil && c.body.Attributes[name] != nil
}

func (c *checker) duration(name, text string, low, high time.Duration) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil || d < low || d > high {
		c.fail(name, "%q must be a duration between %s and %s, such as \"90s\" or \"10m\"", text, low, high)
	}
	return d
}

func (c *checker) absolute(name, path string) {
	if !filepath.IsAbs(path) {
		c.fail(name, "%q must be an absolute path", path)
	}
}

func (c *checker) absoluteOrNone(name, path string) {
	if path != "" {
		c.absolute(name, path)
	}
}

func (c *checker) positive(name string, n int64) {
	if n <= 0 {
		c.fail(name, "must be above 0")
	}
}

func known(kind string) bool { return slices.Contains(Kinds(), kind) }

// suggest gives a did-you-mean for a name that is nearly one of the names, "" for
// any other.
func suggest(got string, names []string) string {
	if s := Nearest(got, names); s != "" {
		return "did you mean " + quote(s) + "?"
	}
	return ""
}

// Nearest is the name that got was probably meant to be: one that goes on, or is
// written nearly alike. Two wrong letters are forgiven in a name that has more
// than four, or when they are only swapped.
func Nearest(got string, names []string) string {
	best, least := "", 3
	for _, n := range names {
		d := levenshtein.Distance(got, n, nil)
		if len(got) > 2 && strings.HasPrefix(n, got) {
			d = min(d, 2)
		}
		if d < least && (d < 2 || len(n) > 4 || sorted(n) == sorted(got)) {
			best, least = n, d
		}
	}
	return best
}

func sorted(s string) string { return string(slices.Sorted(slices.Values([]byte(s)))) }

func quote(s string) string { return strconv.Quote(s) }

func warnNoEffect(body *hclsyntax.Body) Diagnostics {
	c := checker{body: body}
	for _, name := range slices.Sorted(keys(body.Attributes)) {
		if noEffectYet[name] {
			c.warn(name, "has no effect in this version")
		}
	}
	return c.diags
}
