// Package vm tests AgentLab with real virtual machines: the real daemon, the
// real plugins, QEMU with the real guest image, driven by the real command line
// in a network namespace of the test's own. Guests are shared between tests,
// since a cold boot costs up to half a minute without KVM.
package vm
