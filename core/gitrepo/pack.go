package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// PackOptions choose what Pack takes.
type PackOptions struct {
	Ref   string // branch, tag or commit; "" is HEAD
	Dirty bool   // take uncommitted and untracked, not ignored, files along
}

// Pack writes an archive of the repository that holds dir: a working copy, a
// directory inside one, a worktree or a bare repository. fault.NotFound: not a
// repository, or Ref names nothing. fault.Precondition: no commit yet,
// uncommitted changes without Dirty. fault.Denied: it belongs to another user.
// Errors of w are passed on unclassified.
func Pack(ctx context.Context, dir string, opts PackOptions, w io.Writer) (Meta, error) {
	src, err := openSource(ctx, dir)
	if err != nil {
		return Meta{}, err
	}
	temp, err := src.as.tempDir("agentlab-pack-")
	if err != nil {
		return Meta{}, err
	}
	defer os.RemoveAll(temp)

	meta, err := src.choose(ctx, opts)
	if err != nil {
		return Meta{}, err
	}
	stage, err := src.stage(ctx, filepath.Join(temp, "stage.git"))
	if err != nil {
		return Meta{}, err
	}
	if meta.Dirty {
		if meta.Head, err = src.snapshot(ctx, temp, filepath.Join(stage.dir, "objects"), meta.Base); err != nil {
			return Meta{}, err
		}
	}
	bundle := filepath.Join(temp, bundleName)
	if err := stage.bundle(ctx, meta, bundle); err != nil {
		return Meta{}, err
	}
	shallow := ""
	if meta.Shallow {
		shallow = filepath.Join(stage.dir, "shallow")
	}
	if err := writeArchive(w, meta, shallow, bundle, src.as); err != nil {
		return Meta{}, err
	}
	return meta, nil
}

// source is the user's repository. It is only read.
type source struct {
	git
	top     string // working copy, "" for a bare repository
	name    string
	objects string // object format
	store   string // object directory
	shallow string // file name
}

func openSource(ctx context.Context, dir string) (*source, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolve directory: %w", err)
	}
	if st, err := os.Stat(dir); err != nil {
		return nil, fault.New(fault.NotFound, "open repository: %w", err).
			WithHint("name a directory, or a URL with its scheme such as https://")
	} else if !st.IsDir() {
		return nil, fault.New(fault.Invalid, "%s is not a directory", dir)
	}
	as := callerOf(dir)
	s := &source{git: git{dir: dir, config: userSettings(ctx, as), as: as}}
	out, err := s.run(ctx, "rev-parse", "--path-format=absolute", "--show-object-format",
		"--git-path", "objects", "--git-path", "shallow", "--is-inside-work-tree")
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", dir, err)
	}
	lines := strings.Split(out, "\n")
	if len(lines) != 4 {
		return nil, fault.New(fault.Unsupported, "the path of repository %s contains a line break", dir)
	}
	s.objects, s.store, s.shallow = lines[0], lines[1], lines[2]
	s.name = filepath.Base(dir)
	if lines[3] == "true" {
		if s.top, err = s.run(ctx, "rev-parse", "--path-format=absolute", "--show-toplevel"); err != nil {
			return nil, fmt.Errorf("find top of working copy: %w", err)
		}
		if err := s.enterTop(ctx); err != nil {
			return nil, err
		}
	}
	return s, s.disarmFilters(ctx)
}

// enterTop makes the working copy's top directory the one that commands run
// in. A repository says itself where that is (core.worktree): it must not send
// them to another repository, whose files and settings would be used instead.
func (s *source) enterTop(ctx context.Context) error {
	found := []string{"rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir"}
	before, err := s.run(ctx, found...)
	if err != nil {
		return fmt.Errorf("find git directory: %w", err)
	}
	from := s.dir
	s.dir, s.name = s.top, filepath.Base(s.top)
	after, err := s.run(ctx, found...)
	if err != nil && !errors.Is(err, fault.NotFound) {
		return fmt.Errorf("find git directory of working copy: %w", err)
	}
	if err != nil || after != before {
		return fault.New(fault.Denied, "the repository of %s says that its working copy is %s, which is not its own", from, s.top).
			WithHint("look at it with: git -C %s config core.worktree; unset it if you did not set it", from)
	}
	return nil
}

// disarmFilters overrides every filter program that the repository's
// configuration names, so that no command can start one.
func (s *source) disarmFilters(ctx context.Context) error {
	out, err := s.run(ctx, "config", "--null", "--name-only", "--get-regexp", `^filter\.`)
	if err != nil {
		return nil // none: git exits with 1
	}
	seen := map[string]bool{}
	for key := range strings.SplitSeq(out, "\x00") {
		dot := strings.LastIndexByte(key, '.')
		if dot <= 0 || seen[key[:dot]] {
			continue
		}
		name := key[:dot]
		if strings.Contains(name, "=") {
			return fault.New(fault.Unsupported, "the repository configures a filter with an equals sign in its name")
		}
		seen[name] = true
		s.config = append(s.config, name+".clean=", name+".smudge=", name+".process=", name+".required=false")
	}
	return nil
}

// choose finds what to pack and whether it may be packed.
func (s *source) choose(ctx context.Context, opts PackOptions) (Meta, error) {
	m := Meta{Format: format, Objects: s.objects, Name: s.name}
	if st, err := os.Stat(s.shallow); err == nil && st.Size() > 0 {
		m.Shallow = true
	}
	head, headErr := s.run(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
	rev := opts.Ref
	if rev == "" {
		if headErr != nil {
			return m, fault.New(fault.Precondition, "repository %s has no commit yet", s.name).WithHint("make a first commit")
		}
		rev = "HEAD"
	}
	commit, err := s.run(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", rev+"^{commit}")
	if err != nil {
		return m, fault.New(fault.NotFound, "repository %s has no branch, tag or commit %q", s.name, rev).
			WithHint("list them with: git branch --all; git tag")
	}
	m.Head, m.Base = commit, commit
	full, err := s.run(ctx, "rev-parse", "--symbolic-full-name", "--end-of-options", rev)
	if err == nil {
		full = strings.TrimPrefix(full, "--end-of-options\n")
	}
	if err == nil && plainBranch(full) {
		m.Ref = full
	}
	if s.top == "" || headErr != nil || commit != head {
		if opts.Dirty && commit != head {
			return m, fault.New(fault.Invalid, "uncommitted changes belong to HEAD, not to %q", opts.Ref).
				WithHint("leave --ref or --dirty out")
		}
		return m, nil
	}
	changed, err := s.changes(ctx)
	if err != nil {
		return m, err
	}
	if len(changed) > 0 && !opts.Dirty {
		return m, fault.New(fault.Precondition, "repository %s has uncommitted changes: %s", s.name, summary(changed)).
			WithHint("commit or stash them, or take them along with --dirty")
	}
	m.Dirty = len(changed) > 0
	return m, nil
}

func summary(paths []string) string {
	const shown = 5
	if len(paths) > shown {
		return fmt.Sprintf("%s and %d more", strings.Join(paths[:shown], ", "), len(paths)-shown)
	}
	return strings.Join(paths, ", ")
}

// staging is a bare repository of ours that borrows the objects of the user's.
// Its configuration is ours, and references can be made in it freely.
type staging struct{ git }

func (s *source) stage(ctx context.Context, dir string) (staging, error) {
	st := staging{git{dir: filepath.Dir(dir), as: s.as}}
	if _, err := st.run(ctx, "init", "--quiet", "--bare", "--template=", "--object-format="+s.objects, dir); err != nil {
		return st, fmt.Errorf("make staging repository: %w", err)
	}
	st.dir = dir
	if err := borrow(ctx, dir, s.store, s.as); err != nil {
		return st, err
	}
	list, err := s.as.open(s.shallow)
	if os.IsNotExist(err) {
		return st, nil
	}
	if err != nil {
		return st, fmt.Errorf("read shallow list: %w", err)
	}
	defer list.Close()
	if size, err := list.Stat(); err == nil && size.Size() == 0 {
		return st, nil // an empty list would make the staging repository shallow
	}
	return st, s.as.put(ctx, filepath.Join(dir, "shallow"), list)
}

// borrow makes the objects in store usable in the bare repository dir.
func borrow(ctx context.Context, dir, store string, as *caller) error {
	list := filepath.Join(dir, "objects", "info", "alternates")
	if err := as.put(ctx, list, strings.NewReader(store+"\n")); err != nil {
		return fmt.Errorf("name object store: %w", err)
	}
	return nil
}

// bundle writes the history of meta.Head to file.
func (st staging) bundle(ctx context.Context, m Meta, file string) error {
	if _, err := st.run(ctx, "update-ref", packedRef, m.Head); err != nil {
		return fmt.Errorf("name packed commit: %w", err)
	}
	if _, err := st.run(ctx, "bundle", "create", "--quiet", file, packedRef); err != nil {
		if said(err, "missing", "promisor", "bad object") {
			return fault.New(fault.Precondition, "the repository lacks objects of its history: %w", err).
				WithHint("a partial clone must be completed first: git fetch --refetch --no-filter")
		}
		return fmt.Errorf("pack repository: %w", err)
	}
	return nil
}

// packedRef is the one reference in an archive's bundle.
const packedRef = "refs/agentlab/packed"
