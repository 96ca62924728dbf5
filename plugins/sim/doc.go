// Package main simulates a whole host for tests and load: the plugin
// agentlab-plugin-sim. It serves every kind, one per process, over one world in
// a directory that survives every kill and misbehaves on request.
package main
