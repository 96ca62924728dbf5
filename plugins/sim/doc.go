// Package main simulates a whole host for tests and load: the plugin
// agentlab-plugin-sim. It serves every kind, one per process, over one world in
// a directory that survives every kill and misbehaves on request.
//
// There are two ways to ask for it, and without them it is an ordinary plugin.
// faults.json in the world, written by World.SetFaults, concerns its calls, its
// health check and its guests: see world.Fault. misbehave.json beside its binary,
// written by world.AskAtStart, is for what happens before it has a world, up to
// its handshake with the host; it is looked for only when a host starts the
// plugin. Neither is known to any other plugin.
package main
