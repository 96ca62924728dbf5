package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Type is what a key takes.
type Type string

// The types of keys; a Field without one is a block.
const (
	TypeString   Type = "string"
	TypeDuration Type = "duration" // a string such as "90s" or "10m"
	TypeInteger  Type = "integer"
	TypeNumber   Type = "number"
	TypeBool     Type = "bool"
	TypeList     Type = "list of strings"
)

// Field is a key, or a block with its own fields.
type Field struct {
	Name     string  `json:"name"`
	Type     Type    `json:"type,omitempty" doc:"none for a block"`
	Default  string  `json:"default,omitempty" doc:"as it is written in HCL"`
	Help     string  `json:"help"`
	Restart  bool    `json:"restart,omitempty" doc:"a running daemon does not take over a change"`
	NoEffect bool    `json:"no_effect,omitempty" doc:"read and checked, and without effect in this version"`
	Labels   int     `json:"labels,omitempty" doc:"how many a block has"`
	Open     bool    `json:"open,omitempty" doc:"a block whose fields somebody else knows"`
	Fields   []Field `json:"fields,omitempty" doc:"of a block"`
}

// Schema is what config.hcl may hold, in the order of the documentation.
func Schema() []Field { return fieldsOf(reflect.TypeFor[fileForm](), "") }

// ProfileSchema is what a profile's file may hold: the block profile.
func ProfileSchema() []Field { return fieldsOf(reflect.TypeFor[profilesForm](), "") }

// fieldsOf reads the fields from the form that the file is decoded into, and
// what is said about them from the table.
func fieldsOf(form reflect.Type, path string) []Field {
	var out []Field
	for i := range form.NumField() {
		f := form.Field(i)
		name, kind, _ := strings.Cut(f.Tag.Get("hcl"), ",")
		if name == "" || kind == "label" {
			continue
		}
		at := strings.TrimPrefix(path+"."+name, ".")
		about := keyTable[at]
		field := Field{Name: name, Default: about.value, Help: about.help}
		t := f.Type
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice && kind == "block" {
			t = t.Elem()
		}
		if kind == "block" {
			field.Labels, field.Open = shape(t)
			field.Fields = fieldsOf(t, at)
		} else if field.Type = typeOf(t); about.duration {
			field.Type = TypeDuration
		}
		if path == "" && form == reflect.TypeFor[fileForm]() {
			field.NoEffect = noEffectYet[name]
			field.Restart = !field.NoEffect && !takenOver(name)
		}
		field.NoEffect = field.NoEffect || about.noEffect
		out = append(out, field)
	}
	return out
}

// shape tells of a block's form how many labels it has, and whether it takes
// what it does not name.
func shape(form reflect.Type) (labels int, open bool) {
	for i := range form.NumField() {
		switch _, kind, _ := strings.Cut(form.Field(i).Tag.Get("hcl"), ","); kind {
		case "label":
			labels++
		case "remain":
			open = true
		}
	}
	return labels, open
}

func typeOf(t reflect.Type) Type {
	switch t.Kind() {
	case reflect.Int64:
		return TypeInteger
	case reflect.Float64:
		return TypeNumber
	case reflect.Bool:
		return TypeBool
	case reflect.Slice:
		return TypeList
	default:
		return TypeString
	}
}

// Find gives the field of that name.
func Find(fields []Field, name string) (Field, bool) {
	i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
	if i < 0 {
		return Field{}, false
	}
	return fields[i], true
}

// Stranger says about a name that is not among the fields what was probably
// meant: a name that is written nearly like it, or the place where it belongs.
func Stranger(name string, among []Field) string {
	var names []string
	for _, f := range among {
		names = append(names, f.Name)
	}
	if s := Nearest(name, names); s != "" {
		return "did you mean " + quote(s) + "?"
	}
	if i := slices.IndexFunc(among, func(f Field) bool { return f.Open }); i >= 0 {
		return "the plugin's own keys go into its block " + among[i].Name
	}
	if place := home(name, Schema(), "config.hcl"); place != "" {
		return "it belongs in " + place
	}
	if place := home(name, ProfileSchema(), ""); place != "" {
		return "it belongs in " + place
	}
	if o, ok := PluginKey(name); ok {
		return "it belongs to the plugin: " + o.Key + " in the config block of plugin " + quote(o.Kind) + " " + quote(o.Plugin)
	}
	return ""
}

// home finds the block that has a field of this name.
func home(name string, fields []Field, place string) string {
	if _, ok := Find(fields, name); ok {
		return place
	}
	for _, f := range fields {
		if f.Type != "" || f.Open {
			continue
		}
		inner := "the block " + f.Name
		if place != "" && place != "config.hcl" {
			inner += " of " + place
		}
		if found := home(name, f.Fields, inner); found != "" {
			return found
		}
	}
	return ""
}

// Owned says which plugin owns what was a key of the daemon in the YAML form.
type Owned struct{ Kind, Plugin, Key string }

// PluginKey finds the owner of a key.
func PluginKey(name string) (Owned, bool) {
	o, ok := pluginKeys[name]
	return o, ok
}

var pluginKeys = map[string]Owned{
	"secrets_age_key_path": {"secrets", "secrets-age", "identity"},
	"snippets_dir":         {"hypervisor", "proxmox", "snippets_dir"},
}

// WholeFile is the place of what concerns a file and no line of it.
func WholeFile(path string) hcl.Range { return hcl.Range{Filename: path} }

// PluginKeys are all such keys, sorted.
func PluginKeys() []string { return slices.Sorted(maps.Keys(pluginKeys)) }
