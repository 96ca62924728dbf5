// Command agentlab is the host's command line. It talks to the daemon through
// core/client only; one file per command, named noun_verb.go.
package main
