package secretsfs

import (
	"encoding/json"
	"net/url"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// Bundle is what a guest uses of the bundle document, format version 1.
type Bundle struct {
	Git struct {
		Token         secret.Value `json:"token"`
		Username      string       `json:"username"`
		SSHPrivateKey secret.Value `json:"ssh_private_key"`
		KnownHosts    string       `json:"known_hosts"`
	} `json:"git"`
	Env    map[string]secret.Value `json:"env"`
	Claude struct {
		Settings     json.RawMessage `json:"settings"`
		SettingsJSON secret.Value    `json:"settings_json"`
	} `json:"claude"`
	SSH struct {
		Keys map[string]struct {
			Key     string `json:"key"`
			Type    string `json:"type"`
			Comment string `json:"comment"`
		} `json:"keys"`
	} `json:"ssh"`
	Tailscale struct {
		AuthKey     secret.Value `json:"authkey"`
		AdminAPIKey secret.Value `json:"admin_api_key"`
	} `json:"tailscale"`
}

// Parse reads the document; an empty one is an empty bundle. Errors do not
// quote it.
func Parse(document json.RawMessage) (Bundle, error) {
	var b Bundle
	if len(document) == 0 {
		return b, nil
	}
	if json.Unmarshal(document, &b) != nil {
		return Bundle{}, fault.New(fault.Invalid, "the secrets document is not in bundle format 1")
	}
	return b, nil
}

// settings gives claude's settings as JSON text, "" for none.
func (b Bundle) settings() secret.Value {
	if !b.Claude.SettingsJSON.Empty() {
		return b.Claude.SettingsJSON
	}
	if text := string(b.Claude.Settings); text != "null" {
		return secret.New(text)
	}
	return secret.Value{}
}

// Values gives everything that must not be seen in what leaves the guest.
func (b Bundle) Values() []secret.Value {
	return append(b.Placed(), b.Tailscale.AuthKey, b.Tailscale.AdminAPIKey)
}

// Placed gives those values that Place lays out for the agent's user.
func (b Bundle) Placed() []secret.Value {
	out := []secret.Value{b.Git.Token, b.Git.SSHPrivateKey}
	for _, v := range b.Env {
		out = append(out, v)
	}
	var settings struct {
		Env map[string]any `json:"env"`
	}
	_ = json.Unmarshal([]byte(b.settings().Reveal()), &settings)
	for _, v := range settings.Env {
		if text, ok := v.(string); ok {
			out = append(out, secret.New(text))
		}
	}
	return out
}

// FromURL gives the password in a URL, if there is one.
func FromURL(raw string) []secret.Value {
	u, err := url.Parse(raw)
	if err != nil || u.User == nil {
		return nil
	}
	var out []secret.Value
	if password, ok := u.User.Password(); ok {
		out = append(out, secret.New(password))
	} else if strings.HasPrefix(u.Scheme, "http") {
		out = append(out, secret.New(u.User.Username())) // a token in the user's place
	}
	return out
}

// operatorKeys gives the public keys that may log in, one line each.
func (b Bundle) operatorKeys() []string {
	var out []string
	for name, k := range b.SSH.Keys {
		line := strings.TrimSpace(k.Key)
		if line == "" || strings.ContainsAny(line, "\r\n") {
			continue // not one public key
		}
		if len(strings.Fields(line)) == 1 && k.Type != "" {
			line = k.Type + " " + line
		}
		if len(strings.Fields(line)) == 2 {
			comment := k.Comment
			if comment == "" {
				comment = name
			}
			line += " " + strings.Join(strings.Fields(comment), "_")
		}
		out = append(out, line)
	}
	return out
}
