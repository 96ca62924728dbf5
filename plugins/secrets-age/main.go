package main

import (
	"context"
	"encoding/json"
	"path/filepath"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
	"github.com/agentlab/agentlab/sdk/version"
)

func main() { plugin.Serve(secretsAge()) }

func secretsAge() plugin.Plugin {
	return plugin.Plugin{
		Name:        "secrets-age",
		Version:     version.String(),
		Description: "secrets bundles in files that are encrypted with age",
		Kinds:       []plugin.Kind{plugin.Secrets},
		Schema: &plugin.Schema{Version: 1, Block: plugin.Block{Attributes: []plugin.Attribute{
			{
				Name: "identity", Type: plugin.String, Default: "/etc/agentlab/keys/age.key",
				Description: "Key file that opens the bundles: age identities (X25519 or hybrid), one per line, or one OpenSSH private key. It must not be readable by others.",
			},
			{
				Name: "bundle_dir", Type: plugin.String, Default: "/etc/agentlab/secrets",
				Description: "Directory in which bundle NAME is the file NAME.age.",
			},
			{
				Name: "allow_plaintext", Type: plugin.Bool, Default: false,
				Description: "Also open NAME.yaml, NAME.yml and NAME.json, which are not encrypted.",
			},
		}}},
		// Key and bundles belong to root. It reads them, and can change nothing and
		// send nothing.
		Confinement: plugin.Confinement{User: plugin.NoUser, Capabilities: []string{"CAP_DAC_READ_SEARCH"}},
		Validate:    validate,
		Configure:   configure,
	}
}

type config struct {
	Identity       string `json:"identity"`
	BundleDir      string `json:"bundle_dir"`
	AllowPlaintext bool   `json:"allow_plaintext"`
}

func validate(_ context.Context, raw json.RawMessage) []plugin.Diagnostic {
	var cfg config
	if err := plugin.Decode(raw, &cfg); err != nil {
		return plugin.Remarks(err)
	}
	var out []plugin.Diagnostic
	absolute := func(name, path string) {
		if !filepath.IsAbs(path) {
			out = append(out, plugin.Diagnostic{Summary: name + " must be an absolute path", Path: plugin.Path{plugin.Attr(name)}})
		}
	}
	absolute("identity", cfg.Identity)
	absolute("bundle_dir", cfg.BundleDir)
	return out
}

// configure reads no file yet: a key that is missing now may be there when a
// bundle is asked for, and Health tells about it.
func configure(_ context.Context, _ plugin.HostContext, raw json.RawMessage, log hclog.Logger) (plugin.Instance, error) {
	var cfg config
	if err := plugin.Decode(raw, &cfg); err != nil {
		return plugin.Instance{}, err
	}
	if wrong := validate(context.Background(), raw); len(wrong) > 0 {
		return plugin.Instance{}, plugin.Diagnostics(wrong)
	}
	d := &driver{identity: cfg.Identity, dir: cfg.BundleDir, allowPlaintext: cfg.AllowPlaintext, log: log}
	return plugin.Instance{Service: secrets.Service(d), Health: d.health}, nil
}

// health looks at the key only; bundles tell of themselves.
func (d *driver) health(context.Context) plugin.Health {
	if _, err := loadIdentities(d.identity); err != nil {
		return plugin.Health{State: plugin.Degraded, Message: problem(err)}
	}
	return plugin.Health{State: plugin.Ready}
}
