// Package misbehave makes the plugin's process do what no plugin should, as
// tests of its host ask for: at its start, and while it serves.
package misbehave
