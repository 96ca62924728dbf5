package gitrepo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// changes lists the paths that differ from HEAD, untracked ones included.
func (s *source) changes(ctx context.Context) ([]string, error) {
	return s.status(ctx, "--untracked-files=normal")
}

// status lists paths that differ from HEAD. A submodule's own files are not
// looked at: that would run git in it.
func (s *source) status(ctx context.Context, untracked string) ([]string, error) {
	var out bytes.Buffer
	err := s.stream(ctx, nil, &out, "status", "--porcelain=v1", "-z", "--no-renames", untracked, "--ignore-submodules=dirty")
	if err != nil {
		return nil, fmt.Errorf("look for uncommitted changes: %w", err)
	}
	var paths []string
	for line := range strings.SplitSeq(out.String(), "\x00") {
		if len(line) > 3 {
			paths = append(paths, line[3:])
		}
	}
	return paths, nil
}

// snapshot makes a commit of the working copy on top of base. Index and
// objects of its own keep the user's repository as it is.
func (s *source) snapshot(ctx context.Context, temp, objects, base string) (string, error) {
	index := filepath.Join(temp, "index")
	original, err := s.run(ctx, "rev-parse", "--path-format=absolute", "--git-path", "index")
	if err != nil {
		return "", fmt.Errorf("find index: %w", err)
	}
	if err := copyFile(ctx, original, index, s.as); err != nil {
		return "", err
	}
	g := s.git
	g.env = append(append([]string{}, s.env...),
		"GIT_INDEX_FILE="+index, "GIT_OBJECT_DIRECTORY="+objects,
		"GIT_AUTHOR_NAME=agentlab", "GIT_AUTHOR_EMAIL=agentlab@localhost",
		"GIT_COMMITTER_NAME=agentlab", "GIT_COMMITTER_EMAIL=agentlab@localhost")
	// git add would run git in submodules, with their own filters; update-index
	// looks at the paths that it is given, and at a submodule's HEAD only.
	var paths bytes.Buffer
	listing, err := s.status(ctx, "--untracked-files=all")
	if err != nil {
		return "", err
	}
	for _, path := range listing {
		paths.WriteString(strings.TrimSuffix(path, "/") + "\x00")
	}
	if err := g.stream(ctx, &paths, io.Discard, "-c", "core.splitIndex=false", "update-index", "--add", "--remove", "--replace", "-z", "--stdin"); err != nil {
		return "", fmt.Errorf("take uncommitted changes: %w", err)
	}
	tree, err := g.run(ctx, "write-tree")
	if err != nil {
		return "", fmt.Errorf("write tree of uncommitted changes: %w", err)
	}
	commit, err := g.run(ctx, "commit-tree", "-p", base, "-m", "Uncommitted changes", tree)
	if err != nil {
		return "", fmt.Errorf("commit uncommitted changes: %w", err)
	}
	return commit, nil
}

func copyFile(ctx context.Context, from, to string, as *caller) error {
	in, err := as.open(from)
	if os.IsNotExist(err) {
		return nil // no index yet is an empty index
	}
	if err != nil {
		return fmt.Errorf("open index: %w", err)
	}
	defer in.Close()
	return as.put(ctx, to, in)
}
