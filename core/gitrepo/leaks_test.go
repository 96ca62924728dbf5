package gitrepo_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/gitrepo"
	"github.com/agentlab/agentlab/sdk/secret"
)

const leaked = "planted/secret-value"

func TestFindLeaks(t *testing.T) {
	plain := strings.NewReplacer("/", "-").Replace(leaked)
	for name, c := range map[string]struct {
		base   map[string]string
		work   func(r repo) // what the agent does
		values []string
		want   []gitrepo.Leak // Commit names the commit by its subject
	}{
		"content":      {work: func(r repo) { r.write("conf/prod.env", "K="+leaked); r.commit("one") }, want: []gitrepo.Leak{{"one", "conf/prod.env"}}},
		"base64":       {work: func(r repo) { r.write("k", base64.StdEncoding.EncodeToString([]byte("u:"+leaked))); r.commit("one") }, want: []gitrepo.Leak{{"one", "k"}}},
		"large binary": {work: func(r repo) { r.write("k", strings.Repeat("\x00", 300<<10)+leaked); r.commit("one") }, want: []gitrepo.Leak{{"one", "k"}}},
		"message":      {work: func(r repo) { r.write("k", "x"); r.commit("one\n\nwith " + leaked) }, want: []gitrepo.Leak{{"one", "its message or author"}}},
		"author":       {work: func(r repo) { r.git("commit", "-q", "--allow-empty", "-m", "one", "--author", leaked+" <a@b>") }, want: []gitrepo.Leak{{"one", "its message or author"}}},
		"taken out":    {work: func(r repo) { r.write("k", leaked); r.commit("one"); r.write("k", "x"); r.commit("two") }, want: []gitrepo.Leak{{"one", "k"}}},
		"kept":         {work: func(r repo) { r.write("k", leaked); r.commit("one"); r.write("l", "x"); r.commit("two") }, want: []gitrepo.Leak{{"one", "k"}}},
		"path":         {work: func(r repo) { r.write("a/"+leaked, "x"); r.commit("one") }, want: []gitrepo.Leak{{"one", "a/[REDACTED]"}}},
		"file name":    {values: []string{plain}, work: func(r repo) { r.git("mv", "README", plain); r.commit("one") }, want: []gitrepo.Leak{{"one", "the name of a file in ."}}},
		"other branch": {work: func(r repo) {
			r.git("checkout", "-q", "-b", "x")
			r.write("k", leaked)
			r.commit("one")
			r.git("checkout", "-q", "trunk")
		}, want: []gitrepo.Leak{{"one", "k"}}},
		"branch name": {values: []string{plain}, work: func(r repo) { r.git("checkout", "-q", "-b", plain); r.write("k", "x"); r.commit("one") }, want: []gitrepo.Leak{{"", "the name of a branch"}}},
		"merge": {work: func(r repo) {
			r.git("checkout", "-q", "-b", "x")
			r.write("l", "x")
			r.commit("side")
			r.git("checkout", "-q", "trunk")
			r.write("m", "x")
			r.commit("main")
			r.git("merge", "-q", "--no-commit", "x")
			r.write("k", leaked)
			r.commit("one")
		}, want: []gitrepo.Leak{{"one", "k"}}},
		"harmless":        {work: func(r repo) { r.write("k", "harmless"); r.commit("one") }},
		"no commits":      {work: func(repo) {}},
		"not committed":   {work: func(r repo) { r.write("k", leaked) }},
		"in base":         {base: map[string]string{"k": "mode = " + leaked}, work: func(r repo) { r.write("k", "mode = "+leaked+"\n#"); r.commit("one") }},
		"another in base": {base: map[string]string{"k": "production"}, values: []string{"production", leaked}, work: func(r repo) { r.write("k", "production\n"+leaked); r.write("l", "production"); r.commit("one") }, want: []gitrepo.Leak{{"one", "k"}}},
		"short":           {values: []string{"abc", ""}, work: func(r repo) { r.write("k", "abc"); r.commit("one") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRepo(t)
			for path, text := range c.base {
				r.write(path, text)
				r.commit("base")
			}
			base := r.git("rev-parse", "HEAD")
			c.work(r)
			witness := r.arm()
			values := []secret.Value{secret.New(leaked)}
			if c.values != nil {
				values = nil
			}
			for _, v := range c.values {
				values = append(values, secret.New(v))
			}
			got, err := gitrepo.FindLeaks(t.Context(), r.dir, base, values)
			if err != nil {
				t.Fatal(err)
			}
			unharmed(t, witness)
			for i, l := range got.Named {
				if l.Commit != "" {
					got.Named[i].Commit = r.git("-c", "core.fsmonitor=false", "show", "--no-patch", "--no-ext-diff", "--format=%s", l.Commit)
				}
			}
			if diff := cmp.Diff(gitrepo.Leaks{Named: c.want, Count: len(c.want)}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFindLeaksNamesAFew(t *testing.T) {
	r := newRepo(t)
	base := r.git("rev-parse", "HEAD")
	for i := range 9 {
		r.write(fmt.Sprint("f", i), leaked+fmt.Sprint(i))
	}
	r.commit("one")
	got, err := gitrepo.FindLeaks(t.Context(), r.dir, base, []secret.Value{secret.New(leaked)})
	if err != nil || got.Count != 9 || len(got.Named) != 5 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestFindLeaksInABrokenRepository(t *testing.T) {
	r := newRepo(t)
	base := r.git("rev-parse", "HEAD")
	r.write("k", leaked)
	r.commit("one")
	blob := r.git("rev-parse", "HEAD:k")
	r.git("update-index", "-q", "--refresh")
	removeObject(t, r, blob)
	if got, err := gitrepo.FindLeaks(t.Context(), r.dir, base, []secret.Value{secret.New(leaked)}); err == nil {
		t.Errorf("searched what is not there: %+v", got)
	}
}

func removeObject(t *testing.T, r repo, id string) {
	t.Helper()
	if err := os.Remove(filepath.Join(r.dir, ".git/objects", id[:2], id[2:])); err != nil {
		t.Fatal(err)
	}
}
