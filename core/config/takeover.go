package config

import (
	"reflect"
	"slices"
	"strings"
)

// TakeOver gives next as far as a running daemon can follow it: what only a
// restart changes keeps its value of running, and changed names those keys.
func TakeOver(running, next *Config) (now *Config, changed []string) {
	out := *next
	from, to := reflect.ValueOf(running).Elem(), reflect.ValueOf(&out).Elem()
	for i := range to.NumField() {
		field := to.Type().Field(i)
		name := field.Name
		if slices.Contains(takesOver, name) || name == "File" || !field.IsExported() {
			continue
		}
		if !reflect.DeepEqual(from.Field(i).Interface(), to.Field(i).Interface()) {
			changed = append(changed, keyOf(name))
		}
		to.Field(i).Set(from.Field(i))
	}
	return &out, changed
}

// NewPlugins gives the blocks of next that are not so in running, or would start
// another binary.
func NewPlugins(running, next *Config) []PluginBlock {
	return slices.DeleteFunc(slices.Clone(next.Plugins), func(b PluginBlock) bool {
		a, ok := samePlugin(running.Plugins, b)
		return ok && slices.Equal(a.source, b.source) && (b.Path != "" || running.PluginDir == next.PluginDir)
	})
}

func samePlugin(among []PluginBlock, p PluginBlock) (PluginBlock, bool) {
	i := slices.IndexFunc(among, func(q PluginBlock) bool { return p.Kind == q.Kind && p.Name == q.Name })
	if i < 0 {
		return PluginBlock{}, false
	}
	return among[i], true
}

// keyOf is the key that fills a field of Config.
func keyOf(field string) string {
	if field == "ProvisionTimeout" {
		return "provisioning_timeout"
	}
	for key := range keyTable {
		if strings.EqualFold(strings.ReplaceAll(key, "_", ""), field) {
			return key
		}
	}
	return field
}

func takenOver(key string) bool {
	return slices.ContainsFunc(takesOver, func(field string) bool { return keyOf(field) == key })
}
