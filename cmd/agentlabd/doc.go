// Command agentlabd is the daemon: it reads the configuration, wires the parts
// of the core together and runs them until it is told to stop.
//
// With --dev it is a throw-away daemon: everything it needs is made under one
// directory, and it lives in a network namespace of its own.
package main
