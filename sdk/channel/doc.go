// Package channel is how a hypervisor's plugin and agent-runner inside a VM
// speak without a network: over a virtio-serial port named Port, which the
// plugin's side reaches as a socket. It has both halves: Host for plugins of
// any backend, Serve for the guest.
//
// A plugin gives every VM such a port. To start VMs from memory it boots one
// with a disk labelled TemplateLabel in the place of the seed, waits with
// AwaitReady, freezes it, and lets each copy Assume an identity of its own. A copy
// that has one still does nothing with it until it is told to Go: up to there it can
// be thrown away and another begun with the same identity, and after that not, since
// it may have spent what is good for one guest only. So a plugin notes durably that a
// copy is named before it says Go. Busy and Exec serve any VM.
//
// A copy that is begun before anybody needs it may Rehearse: it does once what it will
// do with an identity, which an emulator makes dear, and is still a template's copy
// without one.
//
// The wire is one JSON object a line, each with an empty line before it. A
// connection of the host begins a session with a random id; what does not
// belong to the session is passed over on both sides, so that what an earlier
// client left in the buffers, half a line included, does no harm. Calls of a
// session run side by side. Of each call's output and input at most a few
// chunks are under way, so neither side can flood the other or hold up its other
// calls.
//
// The guest belongs to its user and may say anything. Host bounds what it
// reads, and every call ends with its context; State, Rehearse, Assume and Busy have an
// own deadline beside it. What answers say is the guest's word and no proof.
package channel
