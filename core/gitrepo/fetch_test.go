package gitrepo_test

import (
	"archive/tar"
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/gitrepo"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestChangesComeBack(t *testing.T) {
	for name, dirty := range map[string]bool{"clean": false, "dirty": true} {
		t.Run(name, func(t *testing.T) {
			r := newRepo(t)
			if dirty {
				r.write("README", "not committed\n")
			}
			meta, guest := roundTrip(t, r.dir, gitrepo.PackOptions{Dirty: dirty})
			bundle := filepath.Join(t.TempDir(), "changes.bundle")
			if !dirty {
				none, err := gitrepo.MakeChanges(t.Context(), guest.dir, meta.Base, bundle)
				if _, statErr := os.Stat(bundle); err != nil || none.Commits != 0 || statErr == nil {
					t.Fatalf("no commits: %+v, %v, file %v", none, err, statErr)
				}
			}
			guestWitness := guest.arm()
			guest.write("result", "done\n")
			guest.git("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "commit.gpgSign=false", "add", "result")
			guest.git("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "commit.gpgSign=false", "commit", "--quiet", "-m", "work", "result")
			want := guest.git("rev-parse", "HEAD")
			os.Remove(guestWitness)
			made, err := gitrepo.MakeChanges(t.Context(), guest.dir, meta.Base, bundle)
			if err != nil {
				t.Fatal(err)
			}
			if made.Head != want || made.Commits != map[bool]int{false: 1, true: 2}[dirty] {
				t.Errorf("made %+v, want head %s", made, want)
			}
			unharmed(t, guestWitness)

			witness := r.arm()
			branch, head := r.git("-c", "core.fsmonitor=false", "symbolic-ref", "HEAD"), r.git("rev-parse", "HEAD")
			for range 2 {
				got, err := gitrepo.Fetch(t.Context(), r.dir, bundle, "agentlab/job_1")
				if err != nil || got != want {
					t.Fatalf("fetched %s, %v, want %s", got, err, want)
				}
			}
			unharmed(t, witness)
			if r.git("symbolic-ref", "HEAD") != branch || r.git("rev-parse", "HEAD") != head {
				t.Error("the checkout moved")
			}
			if _, err := os.Stat(r.dir + "/result"); err == nil {
				t.Error("a file was checked out")
			}
			if got := r.git("show", "agentlab/job_1:result"); got != "done" {
				t.Errorf("result holds %q", got)
			}
			r.git("fsck", "--strict")
		})
	}
}

// A pack that says that a tree of it is huge must not make git take the memory.
func TestFetchTakesLittleMemory(t *testing.T) {
	r := newRepo(t)
	base := r.git("rev-parse", "HEAD")
	pack := []byte{'P', 'A', 'C', 'K', 0, 0, 0, 2, 0, 0, 0, 1}
	const tree, size = 2, uint64(64 << 30)
	pack = append(pack, 0x80|tree<<4|byte(size&15))
	pack = binary.AppendUvarint(pack, size>>4)
	var body bytes.Buffer
	z := zlib.NewWriter(&body)
	if _, err := z.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	pack = append(pack, body.Bytes()...)
	sum := sha1.Sum(pack)
	bundle := filepath.Join(t.TempDir(), "b")
	text := "# v2 git bundle\n-" + base + "\n" + strings.Repeat("1", 40) + " HEAD\n\n" + string(pack) + string(sum[:])
	if err := os.WriteFile(bundle, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := gitrepo.Fetch(t.Context(), r.dir, bundle, "agentlab/job_1")
	if !errors.Is(err, fault.Invalid) || !strings.Contains(fault.HintOf(err), "1 GiB") {
		t.Errorf("error %v, hint %q", err, fault.HintOf(err))
	}
}

func TestFetchShallow(t *testing.T) {
	full := newRepo(t)
	full.write("README", "more\n")
	full.commit("second")
	r := repo{t, filepath.Join(t.TempDir(), "shallow")}
	full.git("clone", "--quiet", "--depth=1", "file://"+full.dir, r.dir)
	meta, guest := roundTrip(t, r.dir, gitrepo.PackOptions{})
	guest.write("result", "done\n")
	want := guest.commit("work")
	bundle := filepath.Join(t.TempDir(), "b")
	if _, err := gitrepo.MakeChanges(t.Context(), guest.dir, meta.Base, bundle); err != nil {
		t.Fatal(err)
	}
	for _, to := range []repo{r, full} {
		if got, err := gitrepo.Fetch(t.Context(), to.dir, bundle, "agentlab/job_1"); err != nil || got != want {
			t.Errorf("fetched %q, %v, want %s", got, err, want)
		}
	}
}

func TestFetchRefuses(t *testing.T) {
	r := newRepo(t)
	meta, guest := roundTrip(t, r.dir, gitrepo.PackOptions{})
	guest.write("result", "done\n")
	guest.commit("work")
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	if _, err := gitrepo.MakeChanges(t.Context(), guest.dir, meta.Base, good); err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	place := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bent := bytes.Clone(body)
	bent[len(bent)-30] ^= 0x55
	hostile := hostileBundle(t, r, dir)
	r.git("branch", "agentlab/taken", r.git("commit-tree", "-m", "mine", "-p", "HEAD", "HEAD^{tree}"))
	for name, c := range map[string]struct {
		dir, bundle, branch string
		class               fault.Class
	}{
		"no file":          {r.dir, dir + "/none", "agentlab/j", fault.NotFound},
		"not a bundle":     {r.dir, place("text", []byte("hello\n")), "agentlab/j", fault.Invalid},
		"cut off":          {r.dir, place("cut", body[:len(body)-20]), "agentlab/j", fault.Invalid},
		"bent":             {r.dir, place("bent", bent), "agentlab/j", fault.Invalid},
		"only a header":    {r.dir, place("head", body[:bytes.Index(body, []byte("\n\n"))+2]), "agentlab/j", fault.Invalid},
		"lacks base":       {newEmpty(t).dir, good, "agentlab/j", fault.Precondition},
		"branch is a path": {r.dir, good, "../../HEAD", fault.Invalid},
		"branch is taken":  {r.dir, good, "agentlab/taken", fault.Conflict},
		"writes into .git": {r.dir, hostile, "agentlab/j", fault.Invalid},
		"not a repository": {dir, good, "agentlab/j", fault.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			before := r.git("for-each-ref") + r.git("count-objects", "-v")
			if _, err := gitrepo.Fetch(t.Context(), c.dir, c.bundle, c.branch); !errors.Is(err, c.class) {
				t.Errorf("error %v, want %s", err, c.class)
			}
			if after := r.git("for-each-ref") + r.git("count-objects", "-v"); after != before {
				t.Errorf("the repository changed:\n%s\n%s", before, after)
			}
		})
	}
}

// newEmpty is a repository with a history that no other test has.
func newEmpty(t *testing.T) repo {
	r := repo{t, t.TempDir()}
	r.git("init", "--quiet")
	r.write("own", t.Name())
	r.commit("own")
	return r
}

// hostileBundle holds a commit whose tree has an entry ".git/hooks/post-checkout".
func hostileBundle(t *testing.T, r repo, dir string) string {
	evil := repo{t, filepath.Join(t.TempDir(), "evil")}
	r.git("clone", "--quiet", r.dir, evil.dir)
	blob := evil.git("hash-object", "-w", "README")
	tree := func(entry string) string {
		file := filepath.Join(dir, "entry")
		if err := os.WriteFile(file, []byte(entry), 0o600); err != nil {
			t.Fatal(err)
		}
		return evil.git("hash-object", "-t", "tree", "-w", "--literally", file)
	}
	raw := func(id string) string {
		var b strings.Builder
		for i := 0; i < len(id); i += 2 {
			b.WriteByte(unhex(id[i])<<4 | unhex(id[i+1]))
		}
		return b.String()
	}
	hooks := tree("100755 post-checkout\x00" + raw(blob))
	git := tree("40000 hooks\x00" + raw(hooks))
	top := tree("40000 .git\x00" + raw(git))
	evil.git("update-ref", "refs/heads/trunk", evil.git("commit-tree", "-m", "evil", "-p", "HEAD", top))
	path := filepath.Join(dir, "hostile")
	evil.git("bundle", "create", "--quiet", path, "trunk", "--not", "origin/trunk")
	return path
}

func unhex(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

func TestUnpackRefuses(t *testing.T) {
	r := newRepo(t)
	var good bytes.Buffer
	if _, err := gitrepo.Pack(t.Context(), r.dir, gitrepo.PackOptions{}, &good); err != nil {
		t.Fatal(err)
	}
	entry := func(h tar.Header, body string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		h.Size = int64(len(body))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		return b.Bytes()
	}
	c := strings.Repeat("a", 40)
	meta := func(ref string) []byte {
		return entry(tar.Header{Name: "meta.json", Typeflag: tar.TypeReg}, `{"format":1,"objects":"sha1","head":"`+c+`","base":"`+c+`","ref":"`+ref+`"}`)
	}
	for name, body := range map[string][]byte{
		"empty":         nil,
		"text":          []byte("hello"),
		"cut off":       good.Bytes()[:good.Len()/2],
		"path":          append(meta("refs/heads/x"), entry(tar.Header{Name: "../evil", Typeflag: tar.TypeReg}, "x")...),
		"link":          append(meta("refs/heads/x"), entry(tar.Header{Name: "repo.bundle", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, "")...),
		"odd branch":    meta("refs/heads/../../config"),
		"option branch": meta("refs/heads/-x"),
		"no bundle":     append(meta("refs/heads/x"), entry(tar.Header{Name: "repo.bundle", Typeflag: tar.TypeReg}, "x")...),
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			if _, err := gitrepo.Unpack(t.Context(), bytes.NewReader(body), out); !errors.Is(err, fault.Invalid) {
				t.Errorf("error %v, want invalid", err)
			}
		})
	}
	if _, err := gitrepo.Unpack(t.Context(), bytes.NewReader(good.Bytes()), r.dir); !errors.Is(err, fault.Exists) {
		t.Errorf("into a directory in use: %v", err)
	}
}
