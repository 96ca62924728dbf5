package gitrepo

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// detachedBranch is the branch of a checkout whose archive holds a tag or a
// commit.
const detachedBranch = "agentlab"

// Unpack reads an archive and makes a checkout of it in dir, which must not
// exist or be empty. HEAD is on the packed branch, or on "agentlab" when none
// was packed, and refs/remotes/origin/<branch> stays where Head was. The
// archive is not trusted. fault.Invalid: it is malformed; fault.Exists: dir is
// in use.
func Unpack(ctx context.Context, r io.Reader, dir string) (Meta, error) {
	if err := requireEmpty(dir); err != nil {
		return Meta{}, err
	}
	temp, err := os.MkdirTemp("", "agentlab-unpack-")
	if err != nil {
		return Meta{}, fmt.Errorf("make temporary directory: %w", err)
	}
	defer os.RemoveAll(temp)
	meta, err := readArchive(r, temp)
	if err != nil {
		return meta, err
	}
	return meta, checkout(ctx, meta, temp, dir)
}

func checkout(ctx context.Context, meta Meta, temp, dir string) error {
	branch := strings.TrimPrefix(meta.Ref, "refs/heads/")
	if branch == "" {
		branch = detachedBranch
	}
	g := git{dir: temp, config: []string{"protocol.file.allow=always"}}
	if _, err := g.run(ctx, "init", "--quiet", "--template=", "--object-format="+meta.Objects, "--initial-branch="+branch, dir); err != nil {
		return fmt.Errorf("make repository: %w", err)
	}
	g.dir = dir
	if meta.Shallow {
		if err := placeShallow(filepath.Join(temp, shallowName), filepath.Join(dir, ".git", "shallow")); err != nil {
			return err
		}
	}
	tracking := "refs/remotes/origin/" + branch
	if _, err := g.run(ctx, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", filepath.Join(temp, bundleName), packedRef+":"+tracking); err != nil {
		return fault.New(fault.Invalid, "read packed history: %w", err)
	}
	got, err := g.run(ctx, "rev-parse", "--verify", tracking+"^{commit}")
	if err != nil || got != meta.Head {
		return fault.New(fault.Invalid, "the packed history does not hold commit %s", meta.Head)
	}
	if _, err := g.run(ctx, "checkout", "--quiet", "--force", "--no-track", "-B", branch, meta.Head); err != nil {
		return fmt.Errorf("check out %s: %w", branch, err)
	}
	return nil
}

func requireEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case os.IsNotExist(err):
		return nil
	case err != nil:
		return fmt.Errorf("look into %s: %w", dir, err)
	case len(entries) > 0:
		return fault.New(fault.Exists, "%s is not empty", dir)
	}
	return nil
}

func placeShallow(from, to string) error {
	list, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read shallow list: %w", err)
	}
	if !shallowLine.Match(list) {
		return fault.New(fault.Invalid, "the archive's shallow list holds something else than commits")
	}
	if err := os.WriteFile(to, list, 0o644); err != nil {
		return fmt.Errorf("write shallow list: %w", err)
	}
	return nil
}
