package gitrepo

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Names and greatest sizes, in bytes, of the files in an archive.
const (
	metaName    = "meta.json"
	shallowName = "shallow"
	bundleName  = "repo.bundle"

	maxMeta    = 64 << 10
	maxShallow = 16 << 20
	maxBundle  = 8 << 30
)

// format is the version of the archive's layout.
const format = 1

// Meta describes a packed repository.
type Meta struct {
	Format  int    `json:"format"`
	Head    string `json:"head"`           // commit to check out
	Base    string `json:"base"`           // newest commit that the packed repository itself has: Head, or its parent when Dirty
	Ref     string `json:"ref"`            // refs/heads/…; "" when no branch was packed
	Objects string `json:"objects"`        // object format: sha1, sha256
	Shallow bool   `json:"shallow"`        // history is cut off
	Dirty   bool   `json:"dirty"`          // Head is a snapshot of uncommitted changes
	Name    string `json:"name,omitempty"` // of the repository's directory, for people
}

var (
	commitPattern = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	shallowLine   = regexp.MustCompile(`^([0-9a-f]{40}\n|[0-9a-f]{64}\n)*$`)
)

// check refuses a Meta whose values could reach git as something else than
// what they are.
func (m Meta) check() error {
	switch {
	case m.Format != format:
		return fault.New(fault.Unsupported, "repository archive has format %d, this program reads %d", m.Format, format)
	case !commitPattern.MatchString(m.Head), !commitPattern.MatchString(m.Base):
		return fault.New(fault.Invalid, "repository archive names no commit")
	case m.Objects != "sha1" && m.Objects != "sha256":
		return fault.New(fault.Invalid, "repository archive has unknown object format %q", m.Objects)
	case m.Ref != "" && !plainBranch(m.Ref):
		return fault.New(fault.Invalid, "repository archive has the unusable branch %q", m.Ref)
	}
	return nil
}

// plainBranch reports whether ref is refs/heads/NAME with a NAME that git
// accepts (see git-check-ref-format) and no option, path or pattern in it.
func plainBranch(ref string) bool {
	name, ok := strings.CutPrefix(ref, "refs/heads/")
	if !ok || name == "" || len(name) > 200 || strings.ContainsAny(name, " ~^:?*[\\\x7f") ||
		strings.Contains(name, "..") || strings.Contains(name, "@{") || strings.HasPrefix(name, "-") ||
		strings.HasSuffix(name, ".") || name == "HEAD" || name == "@" {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return false
		}
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 })
}

// writeArchive writes the tar stream. shallow and bundle are file names;
// shallow may be "".
func writeArchive(w io.Writer, m Meta, shallow, bundle string, as *caller) error {
	tw := tar.NewWriter(w)
	head, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode archive header: %w", err)
	}
	if err := tw.WriteHeader(&tar.Header{Name: metaName, Mode: 0o600, Size: int64(len(head))}); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	if _, err := tw.Write(head); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	if shallow != "" {
		if err := addFile(tw, shallowName, shallow, as); err != nil {
			return err
		}
	}
	if err := addFile(tw, bundleName, bundle, as); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

func addFile(tw *tar.Writer, name, path string, as *caller) error {
	f, err := as.open(path)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat %s: %w", name, err)
	}
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: st.Size()}); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	if _, err := io.Copy(tw, f); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

// readArchive reads the tar stream and leaves shallow and bundle in dir. Only
// the names and sizes above are accepted, so no path comes from the stream.
func readArchive(r io.Reader, dir string) (Meta, error) {
	var m Meta
	tr := tar.NewReader(r)
	h, err := tr.Next()
	if err != nil {
		return m, broken(err)
	}
	if h.Name != metaName || h.Typeflag != tar.TypeReg || h.Size > maxMeta {
		return m, fault.New(fault.Invalid, "repository archive does not begin with %s", metaName)
	}
	if err := json.NewDecoder(tr).Decode(&m); err != nil {
		return m, broken(err)
	}
	if err := m.check(); err != nil {
		return m, err
	}
	wanted := map[string]int64{bundleName: maxBundle}
	if m.Shallow {
		wanted[shallowName] = maxShallow
	}
	for len(wanted) > 0 {
		h, err := tr.Next()
		if err != nil {
			return m, broken(err)
		}
		limit, ok := wanted[h.Name]
		if !ok || h.Typeflag != tar.TypeReg || h.Size > limit {
			return m, fault.New(fault.Invalid, "repository archive has the unexpected entry %q of %d bytes", h.Name, h.Size)
		}
		delete(wanted, h.Name)
		if err := writeFile(dir+"/"+h.Name, tr); err != nil {
			return m, err
		}
	}
	return m, nil
}

func writeFile(path string, r io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	_, err = io.Copy(f, r)
	if err := errors.Join(err, f.Close()); err != nil {
		return broken(err)
	}
	return nil
}

func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.Invalid, "repository archive is cut off: %w", err)
	}
	return fault.New(fault.Invalid, "read repository archive: %w", err)
}
