package gitrepo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Found is how a checkout of what Pack takes would have a file.
type Found string

// A file is Executable also where only the checkout will show it: behind a
// symbolic link or in a submodule.
const (
	Missing    Found = "missing"
	Plain      Found = "plain"
	Executable Found = "executable"
)

// Check tells what Pack would take and refuses what it would refuse, but for
// what only packing shows: a history that lacks objects. It also looks at one
// file of it. The repository is only read.
func Check(ctx context.Context, dir string, opts PackOptions, file string) (Meta, Found, error) {
	src, err := openSource(ctx, dir)
	if err != nil {
		return Meta{}, "", err
	}
	m, err := src.choose(ctx, opts)
	if err != nil {
		return m, "", err
	}
	found, err := src.find(ctx, m, file)
	return m, found, err
}

// find looks for the file where a job will: in the commit, and for uncommitted
// changes in what snapshot would make of the file.
func (s *source) find(ctx context.Context, m Meta, file string) (Found, error) {
	if m.Dirty {
		changed, err := s.status(ctx, "--untracked-files=all", "--", file)
		if err != nil {
			return "", err
		}
		if len(changed) > 0 {
			return s.findChanged(ctx, file)
		}
	}
	// A directory on its way may be a link or a submodule.
	for at := file; at != "."; at = path.Dir(at) {
		entry, err := s.run(ctx, "ls-tree", "--full-tree", m.Head, "--", at)
		if err != nil {
			return "", fmt.Errorf("look for %s: %w", file, err)
		}
		found := foundAs(entry)
		if found != Missing && (at == file || !strings.HasPrefix(entry, "100")) {
			return found, nil
		}
	}
	return Missing, nil
}

// findChanged takes the one file into an index of its own, as snapshot does.
func (s *source) findChanged(ctx context.Context, file string) (Found, error) {
	temp, err := s.as.tempDir("agentlab-check-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	stage, err := s.stage(ctx, filepath.Join(temp, "stage.git"))
	if err != nil {
		return "", err
	}
	g, err := s.indexed(ctx, temp, filepath.Join(stage.dir, "objects"))
	if err != nil {
		return "", err
	}
	if err := g.take(ctx, bytes.NewBufferString(file+"\x00")); err != nil {
		return "", err
	}
	entry, err := g.run(ctx, "ls-files", "--stage", "--", file)
	if err != nil {
		return "", fmt.Errorf("look for %s: %w", file, err)
	}
	return foundAs(entry), nil
}

// foundAs reads the mode that a line of ls-tree or ls-files begins with.
func foundAs(entry string) Found {
	mode, _, _ := strings.Cut(entry, " ")
	switch mode {
	case "100755", "120000", "160000":
		return Executable
	case "100644", "100664":
		return Plain
	}
	return Missing
}
