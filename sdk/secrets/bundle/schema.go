package bundle

import "regexp"

// shape is what a node of the document may be.
type shape int

const (
	text   shape = iota // any scalar, kept as it is written
	number              // the integer 1, for version
	list                // of text
	fixed               // mapping with the keys of fields
	open                // mapping from names that match name to elem
	object              // mapping of anything
)

type rule struct {
	shape  shape
	fields map[string]*rule
	elem   *rule
	name   *regexp.Regexp
	want   string // of a name that does not match, for people
	needed []string
	secret bool // a value under it must not be seen
	leaf   bool // Keys stops here
}

var (
	envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	keyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

func plain() *rule  { return &rule{shape: text} }
func hidden() *rule { return &rule{shape: text, secret: true} }

// root is bundle format version 1.
var root = &rule{shape: fixed, needed: []string{"version"}, fields: map[string]*rule{
	"version":  {shape: number},
	"metadata": {shape: object},
	"git": {shape: fixed, fields: map[string]*rule{
		"token":           hidden(),
		"username":        plain(),
		"ssh_private_key": hidden(),
		"ssh_public_key":  plain(),
		"known_hosts":     plain(),
	}},
	"env": {shape: open, elem: hidden(), name: envName, want: "the name of an environment variable"},
	"claude": {shape: fixed, fields: map[string]*rule{
		"settings":      {shape: object, leaf: true},
		"settings_json": {shape: text, leaf: true},
	}},
	"ssh": {shape: fixed, fields: map[string]*rule{
		"keys": {
			shape: open, name: keyName, want: "a name of letters, digits, dot, dash and underscore",
			elem: &rule{shape: fixed, leaf: true, needed: []string{"key"}, fields: map[string]*rule{
				"key": plain(), "type": plain(), "comment": plain(),
			}},
		},
	}},
	"tailscale": {shape: fixed, fields: map[string]*rule{
		"authkey":           hidden(),
		"hostname_template": plain(),
		"tags":              {shape: list},
		"extra_args":        {shape: list},
		"admin_api_key":     hidden(),
		"tailnet":           plain(),
	}},
}}
