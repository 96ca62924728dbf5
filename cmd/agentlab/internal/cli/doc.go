// Package cli is a thin layer over mitchellh/cli: one declaration per command
// and flag feeds parsing, help, errors and the reference. Flags may stand
// anywhere before "--", global ones also before the command; a wrong word gets
// a suggestion.
package cli
