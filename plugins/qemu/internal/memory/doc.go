// Package memory keeps memory templates: guests that were booted once without an
// identity and frozen. Each is a folder named after all that it depends on, and
// appears there whole or not at all.
package memory
