package bugreport

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// Bounds of a bundle, before compression.
const (
	MaxFile  = 512 << 10
	MaxTotal = 8 << 20
	maxFiles = 64
)

// Bundle collects files. Nothing is written before Write.
type Bundle struct {
	known   *secret.Redactor
	made    time.Time
	files   []file
	missing []string // one line for each part that could not be had
	size    int
}

type file struct {
	name, about string
	content     []byte
}

// New makes an empty bundle; the given secrets are in none of its files.
func New(known ...secret.Value) *Bundle {
	return &Bundle{known: secret.NewRedactor(known...), made: time.Now().Truncate(time.Second)}
}

// Text adds a file of which the end matters: a log. Of a long one only its
// newest lines are kept.
func (b *Bundle) Text(name, about string, text []byte) {
	cut := tail(text, MaxFile)
	if len(cut) < len(text) {
		about += fmt.Sprintf(" (the last %d of %d bytes)", len(cut), len(text))
	}
	b.add(name, about, cut)
}

// JSON adds a value. One that is too large is left out and told so.
func (b *Bundle) JSON(name, about string, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err == nil && len(text) > MaxFile {
		err = fmt.Errorf("it has %d bytes, more than %d", len(text), MaxFile)
	}
	if err != nil {
		b.Missing(name, err)
		return
	}
	b.add(name, about, append(text, '\n'))
}

// Missing notes why a file is not there.
func (b *Bundle) Missing(name string, cause error) {
	b.missing = append(b.missing, fmt.Sprintf("%s: %v", name, cause))
}

func (b *Bundle) add(name, about string, content []byte) {
	content = scrub(b.known, content)
	if b.size += len(content); b.size > MaxTotal || len(b.files) >= maxFiles {
		b.Missing(name, errors.New("the bundle is full"))
		return
	}
	b.files = append(b.files, file{name, about, content})
}

// Files lists the names of what is inside, in order.
func (b *Bundle) Files() []string {
	names := []string{"README.md"}
	for _, f := range b.files {
		names = append(names, f.name)
	}
	return names
}

func (b *Bundle) readme() []byte {
	var out strings.Builder
	fmt.Fprintf(&out, "# What agentlab doctor collected\n\nMade %s.\n\n", b.made.UTC().Format(time.RFC3339))
	out.WriteString("Secrets that AgentLab knows, and what looks like one, stand here as " + secret.Mask + ".\n" +
		"Tasks are left out. Names of repositories, sandboxes and hosts are not: look\nthrough the files before you hand them on.\n\n")
	for _, f := range b.files {
		fmt.Fprintf(&out, "- `%s`: %s\n", f.name, f.about)
	}
	if len(b.missing) > 0 {
		out.WriteString("\nNot in here:\n\n")
		for _, line := range b.missing {
			fmt.Fprintf(&out, "- %s\n", strings.ReplaceAll(line, "\n", " "))
		}
	}
	return scrub(b.known, []byte(out.String()))
}

// Write makes the file, which must not be there yet, readable for its owner
// only. top is the directory that all files are in.
func (b *Bundle) Write(path, top string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return fault.New(fault.Exists, "%s is there already", path).WithHint("name another file with --output")
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "create the bundle: %w", err)
	case err != nil:
		return fault.New(fault.Denied, "create the bundle: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(fault.New(fault.Internal, "write the bundle: %w", err), os.Remove(path))
		}
	}()
	return b.tar(f, top)
}

func (b *Bundle) tar(w io.Writer, top string) error {
	zip := gzip.NewWriter(w)
	out := tar.NewWriter(zip)
	for _, f := range append([]file{{name: "README.md", content: b.readme()}}, b.files...) {
		head := &tar.Header{Name: top + "/" + f.name, Mode: 0o600, Size: int64(len(f.content)), ModTime: b.made, Typeflag: tar.TypeReg}
		if err := out.WriteHeader(head); err != nil {
			return err
		}
		if _, err := io.Copy(out, bytes.NewReader(f.content)); err != nil {
			return err
		}
	}
	return errors.Join(out.Close(), zip.Close())
}
