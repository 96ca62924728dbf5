package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/config"
)

func TestMistakesAreTheProfilesOwn(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"two.hcl":    "profile \"good\" {\n  template = \"x\"\n}\nprofile \"wrong\" {\n  template = []\n  tmeplate = \"x\"\n}\n",
		"loose.hcl":  "stray = 1\nprofile \"kept-out\" {\n  template = \"x\"\n}\n",
		"syntax.hcl": "profile \"cut\" {\n",
		"typo.hcl":   "profil \"typo\" {}\n",
		"nothing":    "profile \"elsewhere\" {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"good": "", "none": "", "elsewhere": "", "two": "",
		"wrong":    "two.hcl:5: two.hcl:6: ",
		"kept-out": "loose.hcl:1: ",
		"cut":      "syntax.hcl:1: ",
		"syntax":   "syntax.hcl:1: ", // by its file's name
		"typo":     "typo.hcl:1: ",
	} {
		got := ""
		for _, p := range config.ProfileMistakes(dir, name).Problems() {
			got += filepath.Base(p.Place()) + ": "
		}
		if !sameWords(got, want) {
			t.Errorf("%s: mistakes at %q, want %q", name, got, want)
		}
	}
}

func sameWords(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	if len(x) != len(y) {
		return false
	}
	for _, w := range x {
		if !strings.Contains(b, w) {
			return false
		}
	}
	return true
}
