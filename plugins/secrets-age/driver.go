package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
	"github.com/agentlab/agentlab/sdk/secrets/bundle"
)

const encrypted = ".age"

var plaintext = []string{".yaml", ".yml", ".json"}

// bundleName admits dots and dashes ("default-2026-01-30") but no path.
var bundleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// driver implements secrets.Driver over a directory of files.
type driver struct {
	identity       string
	dir            string
	allowPlaintext bool
	log            hclog.Logger
}

var _ secrets.Driver = (*driver)(nil)

// List names the bundles in the directory, readable or not.
func (d *driver) List(context.Context) ([]string, error) {
	entries, err := os.ReadDir(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, openError(err, d.dir)
	}
	var names []string
	for _, e := range entries {
		for _, ext := range d.extensions() {
			name, ok := strings.CutSuffix(e.Name(), ext)
			if ok && bundleName.MatchString(name) && !strings.HasSuffix(name, ".sops") && !e.IsDir() {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (d *driver) extensions() []string {
	if d.allowPlaintext {
		return append([]string{encrypted}, plaintext...)
	}
	return []string{encrypted}
}

// Open decrypts, checks and returns the whole document.
func (d *driver) Open(ctx context.Context, name, purpose string) (secrets.Bundle, error) {
	file, err := d.find(name)
	if err != nil {
		return secrets.Bundle{}, err
	}
	src, err := d.decrypt(file)
	if err != nil {
		return secrets.Bundle{}, err
	}
	doc, err := bundle.Parse(src)
	if err != nil {
		return secrets.Bundle{}, fault.New(fault.Invalid, "%s: %w", file.path, err).WithResource("bundle %s", name)
	}
	plugin.Log(ctx, d.log).Info("bundle opened", "bundle", name, "purpose", purpose, "version", file.version())
	return secrets.Bundle{Document: doc, Version: file.version()}, nil
}

// Describe names what is inside. What keeps Open from working is a problem in
// the answer, not an error, unless there is no such bundle.
func (d *driver) Describe(_ context.Context, name string) (secrets.Description, error) {
	file, err := d.find(name)
	if errors.Is(err, fault.NotFound) || (err != nil && !bundleName.MatchString(name)) {
		return secrets.Description{}, err
	}
	desc := secrets.Description{File: file.path}
	if err != nil {
		desc.Problems = []string{problem(err)}
		return desc, nil
	}
	desc.Version, desc.Updated = file.version(), file.info.ModTime()
	if file.warning != "" {
		desc.Warnings = append(desc.Warnings, file.warning)
	}
	if !file.plain {
		desc.Recipients = stanzas(header(file.content))
	}
	src, err := d.decrypt(file)
	if err != nil {
		desc.Problems = append(desc.Problems, problem(err))
		return desc, nil
	}
	parsed, err := bundle.Inspect(src)
	if err != nil {
		desc.Problems = append(desc.Problems, problem(err))
		return desc, nil
	}
	desc.Keys = parsed.Keys
	desc.Problems = append(desc.Problems, parsed.Errors...)
	desc.Warnings = append(desc.Warnings, parsed.Warnings...)
	return desc, nil
}

func problem(err error) string {
	if hint := fault.HintOf(err); hint != "" {
		return err.Error() + " (" + hint + ")"
	}
	return err.Error()
}

// found is one bundle file, read but not yet decrypted.
type found struct {
	sealed
	path  string
	plain bool
}

// version changes with the content of the file.
func (f found) version() string {
	sum := sha256.Sum256(f.content)
	return hex.EncodeToString(sum[:8])
}

// find reads the file of a bundle. With an error it still gives the path, if
// the name made one.
func (d *driver) find(name string) (found, error) {
	if !bundleName.MatchString(name) {
		return found{}, fault.New(fault.Invalid, "%q is not the name of a bundle", name).
			WithHint("letters, digits, dots, dashes and underscores, without the file's extension")
	}
	missing := fault.New(fault.NotFound, "bundle %s does not exist in %s", name, d.dir).WithResource("bundle %s", name)
	// Through the root no symbolic link can lead out of the directory.
	root, err := os.OpenRoot(d.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return found{}, missing.WithHint("make the directory and put %s%s into it", name, encrypted)
	}
	if err != nil {
		return found{}, openError(err, d.dir)
	}
	defer root.Close()
	if info, err := root.Stat("."); err != nil {
		return found{}, openError(err, d.dir)
	} else if err := checkDir(info, d.dir); err != nil {
		return found{path: d.dir}, err
	}
	for _, ext := range d.extensions() {
		path := filepath.Join(d.dir, name+ext)
		f, err := root.OpenFile(name+ext, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return found{path: path}, openError(err, path)
		}
		defer f.Close()
		file, err := readSealed(f, path)
		return found{sealed: file, path: path, plain: ext != encrypted}, err
	}
	for _, ext := range plaintext {
		if _, err := root.Stat(name + ext); err == nil && !d.allowPlaintext {
			return found{}, missing.WithHint("%s%s is not encrypted: encrypt it with age -r RECIPIENT -o %s%s, or set allow_plaintext", name, ext, name, encrypted)
		}
	}
	return found{}, missing.WithHint("agentlab looks for %s", filepath.Join(d.dir, name+encrypted))
}

// decrypt gives the plaintext only when the file was read to its authenticated
// end: a truncated file yields text first and the error last.
func (d *driver) decrypt(file found) ([]byte, error) {
	if file.plain {
		return file.content, nil
	}
	if slices.Contains(stanzas(header(file.content)), "scrypt") {
		return nil, fault.New(fault.Unsupported, "%s is protected by a passphrase", file.path).
			WithHint("encrypt it to a key: age -r RECIPIENT")
	}
	ids, err := loadIdentities(d.identity)
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(dearmored(file.content), ids...)
	var noMatch *age.NoIdentityMatchError
	switch {
	case errors.As(err, &noMatch):
		return nil, fault.New(fault.Denied, "no key in %s opens %s", d.identity, file.path).
			WithHint("encrypt the bundle to this host's key as well; its public half: age-keygen -y %s", d.identity)
	case err != nil:
		return nil, fault.New(fault.Invalid, "%s is not an age file, or it is damaged", file.path)
	}
	src, err := io.ReadAll(io.LimitReader(r, bundle.MaxSize+1))
	if err != nil {
		return nil, fault.New(fault.Invalid, "%s is cut short or damaged", file.path).
			WithHint("copy the file again from where it was made")
	}
	return src, nil
}

func dearmored(content []byte) io.Reader {
	if trimmed := bytes.TrimLeft(content, " \t\r\n"); bytes.HasPrefix(trimmed, []byte(armor.Header)) {
		return armor.NewReader(bytes.NewReader(trimmed))
	}
	return bytes.NewReader(content)
}

func header(content []byte) []byte {
	h, err := age.ExtractHeader(dearmored(content))
	if err != nil {
		return nil
	}
	return h
}
