package config

import (
	"fmt"
	"path/filepath"
	"slices"
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

func (d Diagnostics) add(sev hcl.DiagnosticSeverity, at hcl.Range, text string) Diagnostics {
	return append(d, &hcl.Diagnostic{Severity: sev, Summary: text, Subject: &at})
}

func line(d *hcl.Diagnostic) string {
	var b strings.Builder
	if d.Subject != nil {
		b.WriteString(d.Subject.Filename)
		if d.Subject.Start.Line > 0 {
			fmt.Fprintf(&b, ":%d", d.Subject.Start.Line)
		}
		b.WriteString(": ")
	}
	if d.Severity == hcl.DiagWarning {
		b.WriteString("warning: ")
	}
	b.WriteString(d.Summary)
	if d.Detail != "" {
		b.WriteString(": " + d.Detail)
	}
	return b.String()
}

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
	c.diags = c.diags.add(hcl.DiagError, at, fmt.Sprintf(format, args...))
}

func (c *checker) warn(name, format string, args ...any) {
	c.diags = c.diags.add(hcl.DiagWarning, c.at(name), name+": "+fmt.Sprintf(format, args...))
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

func (c *checker) positive(name string, n int64) {
	if n <= 0 {
		c.fail(name, "must be above 0")
	}
}

func known(kind string) bool { return slices.Contains(Kinds(), kind) }

// suggest gives a did-you-mean for a name that is one or two edits away.
func suggest(got string, names []string) string {
	for _, n := range names {
		if levenshtein.Distance(got, n, nil) <= 2 {
			return fmt.Sprintf("; did you mean %q?", n)
		}
	}
	return ""
}

func warnNoEffect(body *hclsyntax.Body) Diagnostics {
	c := checker{body: body}
	for _, name := range slices.Sorted(keys(body.Attributes)) {
		if noEffectYet[name] {
			c.warn(name, "has no effect in this version")
		}
	}
	return c.diags
}
