// Package config reads config.hcl and the profiles: strictly, with every
// problem reported at once and with its file and line, and with the defaults
// filled in. What stands in a plugin's config block is kept undecoded; only the
// plugin knows its schema.
package config
