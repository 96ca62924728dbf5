// Package launch starts one plugin binary as a process and ends it again,
// whatever the plugin does.
//
// Start opens the binary, checks who may write it, and executes exactly the
// file that it checked. The process has its own process group, a clean
// environment, a connection with mutual TLS, and a lifeline: when the host ends,
// however it ends, the plugin does too. What the plugin prints cannot block,
// flood or crash the host: a line is cut at 64 KiB, and what is more than some
// hundred lines or 64 KiB a second is counted and not logged.
//
// When the process ends by itself, what is left of its group is killed before
// Done is closed, so nothing of it can still act once the host knows that it is
// gone. Programs that a plugin put into a session of their own live on.
package launch
