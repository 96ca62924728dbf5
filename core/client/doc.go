// Package client is the typed client of the control API, for agentlab and for
// other Go programs.
//
// Every error that the daemon answers is a *fault.Error, so errors.Is with a
// fault class works. Calls end by their own deadline; only Events, FollowLog,
// downloads, uploads and DialSandbox last as long as their context.
package client
