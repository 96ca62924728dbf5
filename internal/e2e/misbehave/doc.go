// Package misbehave makes a plugin of a real daemon do what no plugin should,
// one thing at a time, and expects the daemon to go on, to say what happened,
// and to have all as it was once the plugin behaves again.
package misbehave
