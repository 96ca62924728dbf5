package seed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// maxDocument is the greatest size of one document, in bytes.
const maxDocument = 1 << 20

// Seed is a parsed seed. Warnings name what is in the documents and is not
// understood; it is ignored.
type Seed struct {
	User     UserData
	Meta     MetaData
	Network  NetworkConfig
	Warnings []string
}

// Parse reads documents as Render writes them. Keys that it does not know are
// ignored with a warning; values that it knows must be usable, or the error is
// fault.Invalid. An empty NetworkConfig document leaves the network alone.
func Parse(d Documents) (Seed, error) {
	var s Seed
	if !bytes.HasPrefix(d.UserData, []byte(header)) {
		return s, fault.New(fault.Invalid, "user-data does not begin with %q", strings.TrimSpace(header))
	}
	for _, doc := range []struct {
		name string
		body []byte
		into any
	}{
		{UserDataName, d.UserData[len(header):], &s.User},
		{MetaDataName, d.MetaData, &s.Meta},
		{NetworkConfigName, d.NetworkConfig, &s.Network},
	} {
		if doc.name == NetworkConfigName && len(bytes.TrimSpace(doc.body)) == 0 {
			continue
		}
		if len(doc.body) > maxDocument {
			return s, fault.New(fault.Invalid, "%s has %d bytes, at most %d are read", doc.name, len(doc.body), maxDocument)
		}
		if err := json.Unmarshal(doc.body, doc.into); err != nil {
			return s, fault.New(fault.Invalid, "%s is not the JSON form of a seed: %w", doc.name, err)
		}
		var raw any
		if err := json.Unmarshal(doc.body, &raw); err != nil {
			return s, fault.New(fault.Invalid, "%s: %w", doc.name, err)
		}
		for _, key := range unknown(reflect.TypeOf(doc.into).Elem(), raw, "") {
			s.Warnings = append(s.Warnings, fmt.Sprintf("%s: %s is not understood", doc.name, key))
		}
	}
	return s, s.check()
}

// unknown lists the paths in raw that the type has no field for.
func unknown(t reflect.Type, raw any, at string) []string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var out []string
	switch v := raw.(type) {
	case map[string]any:
		for key, inner := range v {
			here := strings.TrimPrefix(at+"."+key, ".")
			if t.Kind() == reflect.Map {
				out = append(out, unknown(t.Elem(), inner, here)...)
			} else if f, ok := fieldOf(t, key); ok {
				out = append(out, unknown(f, inner, here)...)
			} else {
				out = append(out, here)
			}
		}
	case []any:
		if t.Kind() == reflect.Slice {
			for i, inner := range v {
				out = append(out, unknown(t.Elem(), inner, fmt.Sprintf("%s[%d]", at, i))...)
			}
		}
	}
	slices.Sort(out)
	return out
}

func fieldOf(t reflect.Type, key string) (reflect.Type, bool) {
	if t.Kind() != reflect.Struct {
		return nil, false
	}
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name == key {
			return f.Type, true
		}
	}
	return nil, false
}

func (s Seed) check() error {
	if s.Meta.InstanceID == "" {
		return fault.New(fault.Invalid, "meta-data has no instance-id")
	}
	if h := s.User.Hostname; h != "" && !hostnamePattern.MatchString(h) {
		return fault.New(fault.Invalid, "hostname %q is not a DNS label", h)
	}
	for _, u := range s.User.Users {
		for _, k := range u.AuthorizedKeys {
			if strings.ContainsAny(k, "\r\n\x00") {
				return fault.New(fault.Invalid, "a key of user %q is more than one line", u.Name)
			}
		}
	}
	for _, f := range s.User.WriteFiles {
		if err := f.check(); err != nil {
			return err
		}
	}
	for name, e := range s.Network.Ethernets {
		if err := e.check(); err != nil {
			return fmt.Errorf("read ethernet %s: %w", name, err)
		}
	}
	return nil
}

func (f File) check() error {
	if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" || strings.ContainsRune(f.Path, 0) {
		return fault.New(fault.Invalid, "write_files: %q is not a clean absolute path", f.Path)
	}
	if _, err := f.Mode(); err != nil {
		return err
	}
	if !slices.Contains([]string{"", "text/plain", "b64", "base64"}, f.Encoding) {
		return fault.New(fault.Unsupported, "write_files: encoding %q of %s", f.Encoding, f.Path)
	}
	return nil
}

// Mode gives the permission bits.
func (f File) Mode() (uint32, error) {
	if f.Permissions == "" {
		return 0o644, nil
	}
	m, err := strconv.ParseUint(f.Permissions, 8, 32)
	if err != nil || m > 0o7777 {
		return 0, fault.New(fault.Invalid, "write_files: %q are not permissions", f.Permissions)
	}
	return uint32(m), nil
}

func (e Ethernet) check() error {
	if !macPattern.MatchString(e.Match.MAC) {
		return fault.New(fault.Invalid, "%q is not a MAC address", e.Match.MAC)
	}
	for _, a := range e.Addresses {
		if _, err := netip.ParsePrefix(a); err != nil {
			return fault.New(fault.Invalid, "address: %w", err)
		}
	}
	vias := []string{}
	if e.Gateway4 != "" {
		vias = append(vias, e.Gateway4)
	}
	for _, r := range e.Routes {
		vias = append(vias, r.Via)
		if _, err := netip.ParsePrefix(r.To); err != nil && r.To != "default" {
			return fault.New(fault.Invalid, "route: %w", err)
		}
	}
	if e.Nameservers != nil {
		vias = append(vias, e.Nameservers.Addresses...)
		for _, name := range e.Nameservers.Search {
			if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
				return fault.New(fault.Invalid, "%q is not a search domain", name)
			}
		}
	}
	for _, v := range vias {
		if _, err := netip.ParseAddr(v); err != nil {
			return fault.New(fault.Invalid, "address: %w", err)
		}
	}
	return nil
}
