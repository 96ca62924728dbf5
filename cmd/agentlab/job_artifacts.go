package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/sdk/fault"
)

func jobArtifactsCommand() cli.Command {
	return cli.Command{
		Name: "job artifacts", Args: "JOB", Synopsis: "list what a job left behind", MinArgs: 1, MaxArgs: 1,
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			c, err := connect(env)
			if err != nil {
				return err
			}
			list, err := c.Artifacts(ctx, args[0])
			if err != nil {
				return err
			}
			return show(env, map[string]any{"artifacts": list}, func(w io.Writer) { printArtifacts(w, list) })
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
	list, err := d.c.Artifacts(ctx, d.job)
	if err != nil {
		return err
	}
	for _, p := range paths {
		if !slices.ContainsFunc(list, func(a api.Artifact) bool { return a.Path == p }) {
			return fault.New(fault.NotFound, "the job has no artifact %q", p).WithHint("agentlab job artifacts %s lists them", d.job)
		}
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
	if d.archive {
		err := d.write(root, api.ArchiveName, "", func() (io.ReadCloser, error) { return d.c.ArtifactArchive(ctx, d.job) })
		return d.said(env, err, dir, []string{api.ArchiveName})
	}
	var written []string
	for _, a := range list {
		if len(paths) > 0 && !slices.Contains(paths, a.Path) {
			continue
		}
		err := d.write(root, a.Path, a.SHA256, func() (io.ReadCloser, error) { return d.c.Artifact(ctx, d.job, a.Path) })
		if err != nil {
			return err
		}
		written = append(written, a.Path)
	}
	return d.said(env, nil, dir, written)
}

func (d *download) said(env *cli.Env, err error, dir string, written []string) error {
	if err != nil {
		return err
	}
	return show(env, map[string]any{"directory": dir, "files": written}, func(w io.Writer) {
		for _, p := range written {
			fmt.Fprintln(w, path.Join(dir, p))
		}
	})
}

// write copies one file below root, which a hostile path cannot leave, and puts
// it in place only when it is whole.
func (d *download) write(root *os.Root, name, sum string, open func() (io.ReadCloser, error)) error {
	if _, err := root.Lstat(name); err == nil && !d.force {
		return fault.New(fault.Exists, "%s is there already", name).WithHint("add --force, or name another --output")
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return fault.New(fault.Denied, "create %s: %w", path.Dir(name), err)
	}
	part := name + ".part"
	f, err := root.OpenFile(part, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return fault.New(fault.Denied, "create %s: %w", part, err)
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, hash), r)
	err = errors.Join(err, f.Close())
	if got := hex.EncodeToString(hash.Sum(nil)); err == nil && sum != "" && got != sum {
		err = fault.New(fault.Internal, "%s arrived damaged: its checksum is %.12s…, not %.12s…", name, got, sum)
	}
	if err == nil {
		err = root.Rename(part, name)
	}
	if err != nil {
		if rm := root.Remove(part); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
			err = errors.Join(err, rm)
		}
		return fmt.Errorf("download %s: %w", name, err)
	}
	return nil
}
