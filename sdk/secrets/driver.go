package secrets

import (
	"context"
	"time"

	"github.com/agentlab/agentlab/sdk/secret"
)

// Driver is what every secrets plugin can do.
type Driver interface {
	// List names the bundles that exist, sorted. It decrypts nothing.
	List(ctx context.Context) ([]string, error)
	// Open decrypts a bundle whole. purpose says on whose behalf, for the
	// driver's log. fault.NotFound, fault.Denied (no key fits, or the file may
	// be read by others), fault.Invalid (not a bundle; names the path).
	Open(ctx context.Context, bundle, purpose string) (Bundle, error)
	// Describe names what is in a bundle without any value.
	Describe(ctx context.Context, bundle string) (Description, error)
}

// Bundle is a decrypted bundle.
type Bundle struct {
	Document secret.Value // JSON, bundle format version 1
	Version  string       // changes with the content
}

// Description tells about a bundle without telling any value.
type Description struct {
	File       string
	Version    string
	Keys       []string // "env.OPENAI_API_KEY", sorted
	Recipients []string
	Updated    time.Time
	Problems   []string // what Open would refuse; empty: it opens
	Warnings   []string // what works worse than it could
}
