// Package api holds the words of the control API: the JSON that agentlab and
// other clients exchange with the daemon under /v1. Field names are stable;
// fields may be added. It imports only the standard library.
package api
