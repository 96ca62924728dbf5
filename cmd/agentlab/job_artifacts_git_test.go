package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/fault"
)

// trapConfig has git run a program as soon as it looks for changes.
const trapConfig = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = .\n\tfsmonitor = \"touch $WITNESS; false\"\n"

// TestNoRepository asks git itself which layouts it would run something of.
func TestNoRepository(t *testing.T) {
	for name, c := range map[string]struct {
		there  []string // in the directory beforehand
		files  map[string]string
		git    bool   // git on this machine runs the trap
		refuse string // in the error; "" takes the files
	}{
		"checkout":    {nil, map[string]string{".git/HEAD": "ref: refs/heads/x\n", ".git/objects/x": "", ".git/refs/x": "", ".git/config": trapConfig}, true, "at .git/HEAD, .git/config, .git/objects/x, .git/refs/x for"},
		"bare":        {nil, map[string]string{"HEAD": "ref: refs/heads/x\n", "objects/x": "", "refs/x": "", "config": trapConfig}, true, "HEAD"},
		"bare, below": {nil, map[string]string{"a/b/HEAD": "ref: refs/heads/x\n", "a/b/objects/x": "", "a/b/refs/x": ""}, false, "a/b/HEAD"},
		"worktree": {nil, map[string]string{
			"HEAD": "ref: refs/heads/x\n", "commondir": "c\n", "c/objects/x": "", "c/refs/x": "", "config.worktree": trapConfig,
			"c/config": "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tworktreeConfig = true\n",
		}, true, "HEAD"},
		"link to one":     {nil, map[string]string{".git": "gitdir: elsewhere\n"}, false, ".git"},
		"other case":      {nil, map[string]string{"x/.GIT/config": ""}, false, "x/.GIT/config"},
		"bare, any case":  {nil, map[string]string{"Head": "", "OBJECTS/x": "", "refS/x": ""}, false, "HEAD"},
		"NTFS":            {nil, map[string]string{"git~1/config": "", "y/.git . /config": "", "z/.git::$INDEX_ALLOCATION/config": ""}, false, "git~1/config, y/.git . /config, z/.git::$INDEX_ALLOCATION/config"},
		"HFS+":            {nil, map[string]string{".g\u200cit/config": ""}, false, "it/config"},
		"second half":     {[]string{"objects/y", "refs/y"}, map[string]string{"HEAD": "ref: refs/heads/x\n", "config": trapConfig}, true, "HEAD"},
		"one that is":     {[]string{"HEAD", "objects/y", "refs/y", "config"}, map[string]string{"config": trapConfig}, true, "HEAD"},
		"many":            {nil, map[string]string{".git/1": "", ".git/2": "", ".git/3": "", ".git/4": "", ".git/5": "", ".git/6": ""}, false, ".git/5, …"},
		"harmless":        {nil, map[string]string{"HEAD": "", "objects/x": "", "docs/refs/x": "", ".gitignore": "", ".github/x": "", "git/config": "", "config": trapConfig}, false, ""},
		"name of a file":  {nil, map[string]string{"x.git": "", "agit~1": "", ". git": "", "HEAD.txt": ""}, false, ""},
		"nothing special": {[]string{"HEAD"}, map[string]string{"report.json": "", "out/a": ""}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, p := range c.there {
				put(t, dir, p, "ref: refs/heads/x\n")
			}
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			var list []api.Artifact
			for p := range c.files {
				list = append(list, api.Artifact{Path: p})
			}
			err = noRepository(root, list)
			if c.refuse == "" && err != nil || c.refuse != "" && (!errors.Is(err, fault.Denied) || !strings.Contains(err.Error(), c.refuse)) {
				t.Errorf("answer %v, want %q", err, c.refuse)
			}
			for p, text := range c.files {
				put(t, dir, p, text)
			}
			witness := filepath.Join(t.TempDir(), "ran")
			cmd := exec.Command("git", "status")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir), "GIT_CONFIG_GLOBAL=/dev/null", "WITNESS="+witness)
			out, _ := cmd.CombinedOutput()
			if _, err := os.Stat(witness); (err == nil) != c.git {
				t.Errorf("git ran the trap: %v, want %v\n%s", err == nil, c.git, out)
			}
		})
	}
}

func put(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}
