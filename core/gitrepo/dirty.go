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
func (s *source) status(ctx context.Context, args ...string) ([]string, error) {
	var out bytes.Buffer
	args = append([]string{"status", "--porcelain=v1", "-z", "--no-renames", "--ignore-submodules=dirty"}, args...)
	err := s.stream(ctx, nil, &out, args...)
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
	g, err := s.indexed(ctx, temp, objects)
	if err != nil {
		return "", err
	}
	var paths bytes.Buffer
	listing, err := s.status(ctx, "--untracked-files=all")
	if err != nil {
		return "", err
	}
	for _, path := range listing {
		paths.WriteString(strings.TrimSuffix(path, "/") + "\x00")
	}
	if err := g.take(ctx, &paths); err != nil {
		return "", err
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

// indexed is the repository with a copy of its index in temp, and with objects
// to write to.
func (s *source) indexed(ctx context.Context, temp, objects string) (git, error) {
	index := filepath.Join(temp, "index")
	original, err := s.run(ctx, "rev-parse", "--path-format=absolute", "--git-path", "index")
	if err != nil {
		return git{}, fmt.Errorf("find index: %w", err)
	}
	if err := copyFile(ctx, original, index, s.as); err != nil {
		return git{}, err
	}
	g := s.git
	g.env = append(append([]string{}, s.env...),
		"GIT_INDEX_FILE="+index, "GIT_OBJECT_DIRECTORY="+objects,
		"GIT_AUTHOR_NAME=agentlab", "GIT_AUTHOR_EMAIL=agentlab@localhost",
		"GIT_COMMITTER_NAME=agentlab", "GIT_COMMITTER_EMAIL=agentlab@localhost")
	return g, nil
}

// take brings the paths, each ended by a NUL, into the index as they are in the
// working copy. git add would run git in submodules, with their own filters;
// update-index looks at the paths that it is given, and at a submodule's HEAD
// only.
func (g git) take(ctx context.Context, paths io.Reader) error {
	if err := g.stream(ctx, paths, io.Discard, "-c", "core.splitIndex=false", "update-index", "--add", "--remove", "--replace", "-z", "--stdin"); err != nil {
		return fmt.Errorf("take uncommitted changes: %w", err)
	}
	return nil
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
