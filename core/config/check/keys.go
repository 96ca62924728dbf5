package check

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"golang.org/x/crypto/ssh"

	"github.com/agentlab/agentlab/core/config"
)

// maxKey is more than any key file has.
const maxKey = 64 << 10

// keys checks the operator's public key, and the modes of private keys: those
// in the directory keys beside the file, and those that plugin blocks name.
func (c *checker) keys() {
	c.operatorKey()
	dir := filepath.Join(filepath.Dir(c.cfg.File), "keys")
	entries, err := os.ReadDir(dir)
	if err == nil {
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			c.privateKey(config.WholeFile(path), path)
		}
	}
	for _, p := range c.cfg.Plugins {
		if body, ok := p.Body.(*hclsyntax.Body); ok {
			c.named(body)
		}
	}
}

func (c *checker) operatorKey() {
	path, at := c.cfg.SSHPublicKeyPath, c.cfg.At("ssh_public_key_path")
	if path == "" {
		return
	}
	fail := func(how, format string, args ...any) {
		c.fail(at, how, "ssh_public_key_path: "+format, args...)
	}
	content, st, err := readKey(path)
	switch {
	case !filepath.IsAbs(path):
		fail("", "%q must be an absolute path", path)
		return
	case errors.Is(err, fs.ErrNotExist):
		fail("make one with ssh-keygen -t ed25519, or remove the key", "%s does not exist", path)
		return
	case err != nil:
		fail("", "%s cannot be read: %v", path, err)
		return
	case isPrivate(content):
		fail("name its public half, "+path+".pub", "%s holds a private key, which would go into every sandbox", path)
		return
	}
	if _, _, _, _, err := ssh.ParseAuthorizedKey(content); err != nil {
		fail("it is one line, such as ssh-keygen writes to the file *.pub", "%s holds no public key", path)
	}
	if uid, foreign := config.ForeignOwner(st); foreign {
		c.warn(at, "run chown root "+path, "ssh_public_key_path: %s belongs to uid %d, who may let others into sandboxes", path, uid)
	}
	if st.Mode().Perm()&0o022 != 0 {
		fail("run chmod 0644 "+path, "mode %04o of %s lets others change who gets into sandboxes", st.Mode().Perm(), path)
	}
}

// named looks at the files that a plugin's config names, whatever its keys are
// called.
func (c *checker) named(body *hclsyntax.Body) {
	for _, a := range body.Attributes {
		_ = hclsyntax.VisitAll(a.Expr, func(n hclsyntax.Node) hcl.Diagnostics {
			if lit, ok := n.(*hclsyntax.TemplateExpr); ok && lit.IsStringLiteral() {
				if v, diags := lit.Value(nil); !diags.HasErrors() && filepath.IsAbs(v.AsString()) {
					c.privateKey(lit.Range(), v.AsString())
				}
			}
			return nil
		})
	}
	for _, b := range body.Blocks {
		c.named(b.Body)
	}
}

// privateKey checks the mode of a file that holds a private key.
func (c *checker) privateKey(at hcl.Range, path string) {
	content, st, err := readKey(path)
	if err != nil || !isPrivate(content) {
		return
	}
	if at.Filename != path {
		for _, d := range c.diags {
			if d.Subject != nil && d.Subject.Filename == path {
				return // said with its own place
			}
		}
	}
	switch mode := st.Mode().Perm(); {
	case mode&0o027 != 0:
		c.fail(at, "run chmod 0600 "+path, "mode %04o of the private key %s lets others read or change it", mode, path)
	case mode&0o040 != 0:
		c.warn(at, "run chmod 0600 "+path, "mode %04o of the private key %s lets its group read it", mode, path)
	}
}

func readKey(path string) ([]byte, fs.FileInfo, error) {
	st, err := os.Stat(path) // before opening: a pipe would block
	if err != nil {
		return nil, nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, maxKey))
	return content, st, err
}

func isPrivate(content []byte) bool {
	return bytes.Contains(content, []byte("AGE-SECRET-KEY-")) || bytes.Contains(content, []byte("PRIVATE KEY-----"))
}
