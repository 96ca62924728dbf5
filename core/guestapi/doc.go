// Package guestapi holds the words of the guest API: what agent-runner inside
// a VM and the daemon's guest listener say to each other. It imports only the
// standard library, so that the static runner stays small.
//
// All calls go to the controller's address from the sandbox's own address.
// FetchPath with a token is the first; every other call, and every later fetch,
// carries the credential as "Authorization: Bearer …".
package guestapi
