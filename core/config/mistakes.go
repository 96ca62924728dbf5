package config

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// ProfileMistakes gives the errors that keep the named profile of the directory
// from being used, none where no file has it. A file that is not HCL has it when
// it is called so or a line of it begins that profile.
func ProfileMistakes(dir, name string) Diagnostics {
	entries, _ := os.ReadDir(dir) // said by LoadProfiles
	var out Diagnostics
	for _, file := range profileFiles(dir, entries) {
		_, diags := LoadProfileFile(file)
		diags = slices.DeleteFunc(diags, func(d *hcl.Diagnostic) bool { return d.Severity != hcl.DiagError })
		if len(diags) > 0 {
			src, _ := os.ReadFile(file)
			out = append(out, mistakes(src, file, name, diags)...)
		}
	}
	return out
}

// mistakes are those of a file's errors that are the named profile's or keep all
// of the file's profiles from being used.
func mistakes(src []byte, file, name string, diags Diagnostics) Diagnostics {
	parsed, d := hclsyntax.ParseConfig(src, file, hcl.InitialPos)
	named := strings.TrimSuffix(filepath.Base(file), ".hcl") == name
	if d.HasErrors() {
		head := regexp.MustCompile(`(?m)^[ \t]*profile[ \t]+"?` + regexp.QuoteMeta(name) + `"?[ \t{]`)
		if named || head.Match(src) {
			return diags
		}
		return nil
	}
	blocks := parsed.Body.(*hclsyntax.Body).Blocks
	profile := func(b *hclsyntax.Block) bool { return b.Type == "profile" }
	if named && !slices.ContainsFunc(blocks, profile) {
		return diags
	}
	if !slices.ContainsFunc(blocks, func(b *hclsyntax.Block) bool { return profile(b) && slices.Contains(b.Labels, name) }) {
		return nil
	}
	return slices.DeleteFunc(diags, func(x *hcl.Diagnostic) bool {
		i := slices.IndexFunc(blocks, func(b *hclsyntax.Block) bool { return x.Subject != nil && b.Range().ContainsPos(x.Subject.Start) })
		return i >= 0 && !slices.Contains(blocks[i].Labels, name)
	})
}

// Few gives the first lines, and how many more there are.
func (d Diagnostics) Few(n int) string {
	lines := d.Lines()
	if len(lines) <= n {
		return strings.Join(lines, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(lines[:n], "; "), len(lines)-n)
}
