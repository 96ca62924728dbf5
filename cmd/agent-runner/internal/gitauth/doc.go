// Package gitauth lets git authenticate with a sandbox's secrets: by a key, or
// by answering git's questions from files that only the agent's user can read.
package gitauth
