// Package hypervisor is the contract between AgentLab and what runs its VMs.
// A vendor implements Driver and serves it with plugin.Serve; nothing of the
// core is needed.
//
// # Order of calls
//
// For one sandbox: CreateVM, SetPower(On), …, SetPower(Shutdown or Off),
// DestroyVM. Any call may come again after a crash of either side, also while
// the first is still running. Idempotence is by what is named: CreateVM by
// (VMID, owner), SetPower by target state, DestroyVM by (VMID, owner) where
// gone is success. A repeat converges and answers the present state, so a
// driver needs no journal.
//
// Calls on different VMs are concurrent. Calls on one VM come one after the other,
// but a caller that gave up or a process that was replaced may have left one
// running: The same call may come twice at once, also to two processes. Take a
// lock per VM that holds across processes, such as flock(2) on a file; the second
// call waits for it, or answers fault.Locked or fault.Conflict.
//
// # Ownership
//
// Every VM carries the owner mark it was created with. A driver compares the
// mark before each change and refuses with fault.Precondition when it differs
// or cannot be read: destroying a VM that somebody else made is the worst thing
// a driver can do.
//
// # Errors
//
// Drivers return errors of sdk/fault. NotFound means certainly gone, as shown
// by a listing that worked; when in doubt return Unavailable or Internal.
package hypervisor
