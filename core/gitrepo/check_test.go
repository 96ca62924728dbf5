package gitrepo_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/agentlab/agentlab/core/gitrepo"
)

const script = "dir/run.sh"

// What Check says of a file is what a checkout of the archive has.
func TestCheckFindsWhatAJobWill(t *testing.T) {
	mode := func(m os.FileMode) func(repo) {
		return func(r repo) {
			r.write(script, "#!/bin/sh\n")
			r.chmod(script, m)
		}
	}
	link := func(to, name string) func(repo) {
		return func(r repo) {
			if err := os.Symlink(to, filepath.Join(r.dir, name)); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	both := func(fs ...func(repo)) func(repo) {
		return func(r repo) {
			for _, f := range fs {
				f(r)
			}
		}
	}
	remove := func(r repo) {
		if err := os.Remove(filepath.Join(r.dir, script)); err != nil {
			r.t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		committed, then func(repo)
		want            gitrepo.Found
	}{
		"missing":                 {nil, nil, gitrepo.Missing},
		"executable":              {mode(0o755), nil, gitrepo.Executable},
		"plain":                   {mode(0o644), nil, gitrepo.Plain},
		"behind a link":           {both(func(r repo) { r.write("real", ""); r.chmod("real", 0o755); r.write("dir/x", "") }, link("../real", script)), nil, gitrepo.Executable},
		"in a linked directory":   {both(func(r repo) { r.write("other/run.sh", ""); r.chmod("other/run.sh", 0o755) }, link("other", "dir")), nil, gitrepo.Executable},
		"directory is a file":     {func(r repo) { r.write("dir", ""); r.chmod("dir", 0o755) }, nil, gitrepo.Missing},
		"a directory":             {func(r repo) { r.write(script+"/x", "") }, nil, gitrepo.Missing},
		"untracked, executable":   {nil, mode(0o755), gitrepo.Executable},
		"untracked, plain":        {nil, mode(0o644), gitrepo.Plain},
		"made executable":         {mode(0o644), mode(0o755), gitrepo.Executable},
		"made plain":              {mode(0o755), mode(0o644), gitrepo.Plain},
		"removed":                 {mode(0o755), remove, gitrepo.Missing},
		"ignored":                 {func(r repo) { r.write(".gitignore", "run.sh\n") }, mode(0o755), gitrepo.Missing},
		"mode not looked at":      {func(r repo) { r.git("config", "core.fileMode", "false") }, mode(0o755), gitrepo.Plain},
		"another file is changed": {mode(0o755), func(r repo) { r.write("README", "new\n") }, gitrepo.Executable},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t)
			if c.committed != nil {
				c.committed(r)
				r.git("add", "-A")
				r.git("commit", "--quiet", "--allow-empty", "-m", "second")
			}
			if c.then != nil {
				c.then(r)
			}
			opts := gitrepo.PackOptions{Dirty: c.then != nil}
			before := r.state()
			_, found, err := gitrepo.Check(t.Context(), r.dir, opts, script)
			if err != nil || found != c.want {
				t.Errorf("found %q, %v, want %q", found, err, c.want)
			}
			if after := r.state(); after != before {
				t.Errorf("the repository was changed:\n%s\n%s", before, after)
			}
			var archive bytes.Buffer
			if _, err := gitrepo.Pack(t.Context(), r.dir, opts, &archive); err != nil {
				t.Fatal(err)
			}
			out := filepath.Join(t.TempDir(), "repo")
			if _, err := gitrepo.Unpack(t.Context(), &archive, out); err != nil {
				t.Fatal(err)
			}
			there := gitrepo.Missing
			if st, err := os.Stat(filepath.Join(out, script)); err == nil && st.Mode().IsRegular() {
				there = gitrepo.Plain
				if st.Mode()&0o111 != 0 {
					there = gitrepo.Executable
				}
			}
			if there != c.want {
				t.Errorf("a checkout has %q, want %q", there, c.want)
			}
		})
	}
}

func (r repo) chmod(name string, mode os.FileMode) {
	r.t.Helper()
	if err := os.Chmod(filepath.Join(r.dir, name), mode); err != nil {
		r.t.Fatal(err)
	}
}
