package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/sdk/fault"
)

func jobArtifactsCommand() cli.Command {
	return cli.Command{
		Name: "job artifacts", Args: "JOB", Synopsis: "list what a job left behind", MinArgs: 1, MaxArgs: 1,
		Help: `
Lists the files that the job left behind: its log, its report, its commits and
what the agent put into $AGENTLAB_ARTIFACTS_DIR. FLAGGED tells where a secret
was found.`,
		Answers: []cli.Answer{listing[api.Artifact]("artifacts")},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			list, err := c.Artifacts(ctx, args[0])
			if err != nil {
				return err
			}
			return show(env, listed("artifacts", list), func(w io.Writer) { printArtifacts(w, list) })
		},
	}
}

type download struct {
	c       *client.Client
	job     string
	dir     string
	force   bool
	archive bool
}

func jobDownloadCommand() cli.Command {
	d := &download{}
	return cli.Command{
		Name: "job artifacts download", Args: "JOB [PATH…]", Synopsis: "copy a job's artifacts to this machine", MinArgs: 1, MaxArgs: -1,
		Help: `
Copies all artifacts, or those whose paths are given, into a directory that
nothing leaves, and compares checksums. Files that are there already are kept
unless --force is given; then nothing is copied.

Files that git would take for a repository (.git, or HEAD beside objects and
refs) are refused, --force or not: git runs what a repository's configuration
names. The archive holds them; do not use git where you unpack it.

Files in which a secret was found are copied so that only you may read them,
with a warning on standard error.`,
		Answers: []cli.Answer{cli.AnswerOf[downloaded]("download")},
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&d.dir, "output", "", "`directory` to write to (default: the job's id)")
			fs.BoolVar(&d.force, "force", false, "overwrite files that are there")
			fs.BoolVar(&d.archive, "archive", false, "as one file, "+api.ArchiveName)
		},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			d.c, d.job = c, args[0]
			return d.run(ctx, env, args[1:])
		},
	}
}

func (d *download) run(ctx context.Context, env *cli.Env, paths []string) error {
	if d.archive && len(paths) > 0 {
		return fault.New(fault.Invalid, "--archive has all artifacts; leave the paths out")
	}
	list, err := d.choose(ctx, paths)
	if err != nil {
		return err
	}
	dir := cmp.Or(d.dir, d.job)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fault.New(fault.Denied, "create %s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fault.New(fault.Denied, "open %s: %w", dir, err)
	}
	defer func() { _ = root.Close() }()
	if err := d.keep(root, list); err != nil {
		return err
	}
	written := []string{}
	defer func() { warnFlagged(env, list[:len(written)]) }() // also when the next one fails
	for _, a := range list {
		err := d.write(root, a, func() (io.ReadCloser, error) {
			if d.archive {
				return d.c.ArtifactArchive(ctx, d.job)
			}
			return d.c.Artifact(ctx, d.job, a.Path)
		})
		if err != nil {
			return fmt.Errorf("download %s: %w", a.Path, err)
		}
		written = append(written, a.Path)
	}
	return d.said(env, dir, written)
}

// warnFlagged names files that hold a secret: they are copied, since they may be
// wanted, and should go no further.
func warnFlagged(env *cli.Env, list []api.Artifact) {
	for _, a := range list {
		if a.Flagged != "" {
			fmt.Fprintln(env.Err, oneLine(fmt.Sprintf("warning: %s %s; only you may read it, do not pass it on", a.Path, a.Flagged)))
		}
	}
}

// choose finds the artifacts to copy; the archive counts as one.
func (d *download) choose(ctx context.Context, paths []string) ([]api.Artifact, error) {
	list, err := d.c.Artifacts(ctx, d.job)
	if err != nil {
		return nil, err
	}
	if d.archive {
		return []api.Artifact{{Path: api.ArchiveName, Flagged: flaggedIn(list)}}, nil
	}
	for _, p := range paths {
		if !slices.ContainsFunc(list, func(a api.Artifact) bool { return a.Path == p }) {
			return nil, fault.New(fault.NotFound, "the job has no artifact %q", p).WithHint("agentlab job artifacts %s lists them", d.job)
		}
	}
	if len(paths) == 0 {
		return list, nil
	}
	return slices.DeleteFunc(list, func(a api.Artifact) bool { return !slices.Contains(paths, a.Path) }), nil
}

// flaggedIn says of the archive which of its files are flagged.
func flaggedIn(list []api.Artifact) string {
	var names []string
	for _, a := range list {
		if a.Flagged != "" {
			names = append(names, a.Path+" ("+a.Flagged+")")
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "has flagged files: " + strings.Join(names, ", ")
}

// keep refuses what would do harm before anything is written.
func (d *download) keep(root *os.Root, list []api.Artifact) error {
	for _, a := range list {
		if !filepath.IsLocal(a.Path) {
			return fault.New(fault.Denied, "artifact %q would leave the directory", a.Path)
		}
		if _, err := root.Lstat(a.Path); err == nil && !d.force {
			return fault.New(fault.Exists, "%s is there already; nothing was copied", a.Path).WithHint("add --force, or name another --output")
		}
	}
	return noRepository(root, list)
}

// downloaded is what was copied, for programs.
type downloaded struct {
	Directory string   `json:"directory"`
	Files     []string `json:"files"`
}

func (d *download) said(env *cli.Env, dir string, written []string) error {
	return show(env, downloaded{dir, written}, func(w io.Writer) {
		for _, p := range written {
			fmt.Fprintln(w, oneLine(path.Join(dir, p)))
		}
	})
}

// write copies one file below root, which a hostile path cannot leave, and puts
// it in place only when it is whole. Nobody else may read one that is flagged.
func (d *download) write(root *os.Root, a api.Artifact, open func() (io.ReadCloser, error)) error {
	name, sum, mode := a.Path, a.SHA256, os.FileMode(0o644)
	if a.Flagged != "" {
		mode = 0o600
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return fault.New(fault.Denied, "create %s: %w", path.Dir(name), err)
	}
	part := path.Join(path.Dir(name), ".part-"+rand.Text())
	f, err := root.OpenFile(part, os.O_CREATE|os.O_WRONLY|os.O_EXCL, mode)
	if err != nil {
		return fault.New(fault.Denied, "create a file: %w", err)
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, hash), r)
	err = errors.Join(err, f.Close())
	if got := hex.EncodeToString(hash.Sum(nil)); err == nil && sum != "" && got != sum {
		err = fault.New(fault.Internal, "it arrived damaged: its checksum is %.12s…, not %.12s…", got, sum)
	}
	if err == nil {
		if err = root.Rename(part, name); err == nil {
			return nil
		}
		err = fault.New(fault.Exists, "put the file in place: %w", err)
	}
	return errors.Join(err, root.Remove(part))
}
