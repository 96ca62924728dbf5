package gitrepo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// Bounds of a search.
const (
	searchTimeout = 3 * time.Minute
	searchBytes   = 1 << 30 // of objects, unpacked
	mostLeaks     = 5       // that are named
)

// Leak is a place in which a secret was committed. It holds nothing of it.
type Leak struct {
	Commit string `json:"commit,omitempty"` // "" where no commit holds it: a branch's name
	Where  string `json:"where"`
}

// Leaks is what FindLeaks found.
type Leaks struct {
	Named []Leak `json:"named,omitempty"` // the first of them
	Count int    `json:"count"`
}

// FindLeaks looks for values in what MakeChanges bundles: contents and names of
// files, commit messages and authors, names of branches. A value that the base
// commit or its files hold already is not told: whoever gets the bundle has it.
// Values are seen as a secret.Redactor sees them, so not in what the agent
// compressed or encrypted. fault.Exhausted: the commits are too large to be
// searched. Call it as MakeChanges.
func FindLeaks(ctx context.Context, dir, base string, values []secret.Value) (Leaks, error) {
	var out Leaks
	if !commitPattern.MatchString(base) {
		return out, fault.New(fault.Invalid, "%q is not a commit", base)
	}
	ctx, cancel := context.WithTimeout(ctx, searchTimeout)
	defer cancel()
	s := search{git: untrusted(dir), added: []string{"HEAD", "--branches", "--not", base}}
	hits, err := s.look(ctx, values)
	if err != nil || len(hits) == 0 {
		return out, err
	}
	// A base that is too large to be searched excuses nothing.
	if news, err := s.without(ctx, base, values); err == nil && len(news) < len(values) {
		if hits, err = s.look(ctx, news); err != nil {
			return out, err
		}
	}
	out.Count = len(hits)
	for _, h := range hits[:min(len(hits), mostLeaks)] {
		out.Named = append(out.Named, s.locate(ctx, h))
	}
	return out, nil
}

// search is a look through a repository's objects.
type search struct {
	git
	added []string // revisions that were added
	red   *secret.Redactor
}

// hit is an object, or a branch, that holds a value.
type hit struct{ id, kind, path string }

// look gives what was added and holds a value.
func (s *search) look(ctx context.Context, values []secret.Value) (hits []hit, err error) {
	s.red = secret.NewRedactor(values...)
	if s.red.Longest() == 0 {
		return nil, nil
	}
	branches, err := s.run(ctx, "for-each-ref", "--format=%(refname)", "refs/heads")
	if err != nil {
		return nil, fmt.Errorf("list branches: %w", err)
	}
	for name := range strings.SplitSeq(branches, "\n") {
		if s.red.Contains([]byte(name)) {
			hits = append(hits, hit{kind: "branch"})
		}
	}
	err = s.objects(ctx, s.added, func(h hit, content io.Reader) error {
		find := s.red.Finder()
		if _, err := io.Copy(find, content); err != nil {
			return err
		}
		if find.Found() || s.red.Contains([]byte(h.path)) {
			hits = append(hits, h)
		}
		return nil
	})
	return hits, err
}

// without leaves out the values that the commit base or its files hold.
func (s *search) without(ctx context.Context, base string, values []secret.Value) ([]secret.Value, error) {
	held := make([]bool, len(values))
	finders := make([]*secret.Finder, len(values))
	err := s.objects(ctx, []string{"--no-walk", base}, func(h hit, content io.Reader) error {
		all := make([]io.Writer, len(values))
		for i, v := range values {
			finders[i] = secret.NewRedactor(v).Finder()
			all[i] = finders[i]
		}
		if _, err := io.Copy(io.MultiWriter(all...), io.MultiReader(strings.NewReader(h.path+"\n"), content)); err != nil {
			return err
		}
		for i, f := range finders {
			held[i] = held[i] || f.Found()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("search the base commit: %w", err)
	}
	var out []secret.Value
	for i, v := range values {
		if !held[i] {
			out = append(out, v)
		}
	}
	return out, nil
}

// objects gives visit every object that the revisions name, in git's order:
// commits first. What visit leaves of a content is skipped.
func (s *search) objects(ctx context.Context, revisions []string, visit func(hit, io.Reader) error) error {
	g, ctx := errgroup.WithContext(ctx)
	names, toNames := io.Pipe()
	contents, toContents := io.Pipe()
	g.Go(func() error {
		err := s.stream(ctx, nil, toNames, append([]string{"rev-list", "--objects"}, revisions...)...)
		toNames.CloseWithError(err)
		return err
	})
	g.Go(func() error {
		err := s.stream(ctx, names, toContents, "cat-file", "--batch=%(objectname) %(objecttype) %(objectsize) %(rest)", "--buffer")
		names.CloseWithError(err)
		toContents.CloseWithError(err)
		return err
	})
	g.Go(func() error {
		err := visitAll(contents, visit)
		contents.CloseWithError(err)
		return err
	})
	return g.Wait()
}

func visitAll(r io.Reader, visit func(hit, io.Reader) error) error {
	left := int64(searchBytes)
	for in := bufio.NewReaderSize(r, 256<<10); ; {
		line, err := in.ReadString('\n')
		if err == io.EOF && line == "" {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read object: %w", err)
		}
		part := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(part) < 4 {
			return fault.New(fault.Precondition, "the repository lacks an object of the commits")
		}
		size, err := strconv.ParseInt(part[2], 10, 64)
		if err != nil {
			return fmt.Errorf("read object: %w", err)
		}
		if left -= size; left < 0 {
			return fault.New(fault.Exhausted, "the commits hold more than %d MiB", searchBytes>>20)
		}
		content := io.LimitReader(in, size+1) // a line break follows
		if err := visit(hit{part[0], part[1], part[3]}, content); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, content); err != nil {
			return fmt.Errorf("read object: %w", err)
		}
	}
}

// locate names the first commit that has the object.
func (s *search) locate(ctx context.Context, h hit) Leak {
	switch h.kind {
	case "branch":
		return Leak{Where: "the name of a branch"}
	case "commit":
		return Leak{Commit: h.id, Where: "its message or author"}
	}
	where := s.red.String(h.path)
	if h.kind == "tree" {
		where = "the name of a file in " + path.Join(".", where)
	}
	l := Leak{Where: clip(where, 200)}
	args := []string{"log", "--format=%H %T"}
	if h.path != "" { // a commit's own directory is not among what it changed
		args = append(args, "-m", "-t", "--no-ext-diff", "--no-textconv", "--no-renames", "--find-object="+h.id)
	}
	found, err := s.run(ctx, append(args, s.added...)...)
	if err != nil {
		return l // the place alone must do
	}
	for line := range strings.Lines(found) { // newest first
		if commit, tree, _ := strings.Cut(strings.TrimSpace(line), " "); h.path != "" || tree == h.id {
			l.Commit = commit
		}
	}
	return l
}

func clip(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}
