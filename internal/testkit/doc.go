// Package testkit starts real daemons for tests, drives them through the real
// command line, and looks at what they leave in the world: processes, links,
// rulesets, files.
package testkit
