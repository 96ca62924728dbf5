// Package scaffold writes the beginning of a plugin: a Go project of its own
// that builds, runs, and passes the first level of the conformance checks.
package scaffold
