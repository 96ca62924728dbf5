// Package rootexec runs programs as root for the host. Each has a control group
// of its own, so that nothing of it is left once it has ended or nobody waits
// for it any more.
package rootexec
