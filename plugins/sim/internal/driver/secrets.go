package driver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secrets"
	"github.com/agentlab/agentlab/sdk/secrets/bundle"
)

// Secrets opens bundles that lie in the world as plain text.
type Secrets struct{ world *world.World }

var _ secrets.Driver = (*Secrets)(nil)

// NewSecrets makes the driver.
func NewSecrets(w *world.World) *Secrets { return &Secrets{world: w} }

var (
	bundleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	extensions = []string{".yaml", ".yml", ".json"}
)

func (s *Secrets) dir() string { return filepath.Join(s.world.Dir(), world.Bundles) }

// List names the bundles.
func (s *Secrets) List(ctx context.Context) ([]string, error) {
	if err := s.world.Reach(ctx, "secrets.list", ""); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(s.dir())
	if err != nil {
		return nil, fault.New(fault.Unavailable, "read the bundles: %w", err)
	}
	var out []string
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if name := strings.TrimSuffix(e.Name(), ext); slices.Contains(extensions, ext) && bundleName.MatchString(name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (s *Secrets) read(name string) (path string, src []byte, updated time.Time, err error) {
	if !bundleName.MatchString(name) {
		return "", nil, updated, fault.New(fault.Invalid, "%q is not the name of a bundle", name)
	}
	for _, ext := range extensions {
		path = filepath.Join(s.dir(), name+ext)
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			updated = info.ModTime()
			src, err = os.ReadFile(path)
		}
		if err != nil {
			return "", nil, updated, fault.New(fault.Unavailable, "read bundle %s: %w", name, err)
		}
		return path, src, updated, nil
	}
	return "", nil, updated, fault.New(fault.NotFound, "bundle %s does not exist", name).WithResource("bundle %s", name)
}

// Open reads and checks a bundle.
func (s *Secrets) Open(ctx context.Context, name, _ string) (secrets.Bundle, error) {
	if err := s.world.Reach(ctx, "secrets.open", name); err != nil {
		return secrets.Bundle{}, err
	}
	path, src, _, err := s.read(name)
	if err != nil {
		return secrets.Bundle{}, err
	}
	doc, err := bundle.Parse(src)
	if err != nil {
		return secrets.Bundle{}, fault.New(fault.Invalid, "%s: %w", path, err)
	}
	return secrets.Bundle{Document: doc, Version: version(src)}, nil
}

func version(src []byte) string {
	sum := sha256.Sum256(src)
	return hex.EncodeToString(sum[:8])
}

// Describe names what is in a bundle.
func (s *Secrets) Describe(ctx context.Context, name string) (secrets.Description, error) {
	if err := s.world.Reach(ctx, "secrets.describe", name); err != nil {
		return secrets.Description{}, err
	}
	path, src, updated, err := s.read(name)
	if err != nil {
		return secrets.Description{}, err
	}
	desc := secrets.Description{File: path, Version: version(src), Updated: updated}
	parsed, err := bundle.Inspect(src)
	if err != nil {
		desc.Problems = []string{err.Error()}
		return desc, nil
	}
	desc.Keys = parsed.Keys
	desc.Problems, desc.Warnings = parsed.Errors, parsed.Warnings
	return desc, nil
}
