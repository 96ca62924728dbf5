// Package network is the contract between AgentLab and what joins sandboxes to
// a network and enforces their policy.
//
// The contract is declarative: Attach carries the whole policy of one sandbox,
// the driver applies it in one kernel transaction, and ListAttachments reads
// back what is really in force. Attach is complete before the VM is powered
// on; if any part cannot be enforced, the call fails and nothing has changed.
// A frame from or to a port that is not attached is dropped, so a crash between
// two calls leaves a sandbox shut, never open.
package network
