// Package exposure is the contract between AgentLab and what publishes a
// sandbox's port outside the host.
package exposure
