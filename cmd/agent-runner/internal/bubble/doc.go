// Package bubble wraps a job's command in bubblewrap, the optional sandbox
// inside the sandbox.
package bubble
