// Package unit tests agentlabd as a systemd service. PID 1 of the machine that
// runs the tests need not be systemd, so it happens in a container of the cloud
// image's tree: the installer is run there, over simulated plugins, and the service
// is stopped, killed, misconfigured and hung.
package unit
