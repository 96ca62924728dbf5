// Package convert turns the YAML form of the configuration and of profiles into
// HCL. Comments come along to where they belong, keys that plugins own go to
// their plugins' blocks. What it gives out has been loaded by core/config
// without an error, or it gives nothing and says what is wrong in the YAML, by
// line.
package convert
