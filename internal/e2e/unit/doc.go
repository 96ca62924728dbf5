// Package unit tests agentlabd as a systemd service. PID 1 of the machine that
// runs the tests need not be systemd, so it happens elsewhere: the installer is run
// there, over simulated plugins, and the service is stopped, killed, misconfigured
// and hung. The tests are functions over a guest that somebody else has booted; the
// package's own guest is a container, where nothing is emulated.
package unit
