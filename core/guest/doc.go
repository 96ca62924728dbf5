// Package guest serves the guest API (words in core/guestapi) to the programs
// inside sandboxes.
//
// Who calls is decided by two things together: the address the call comes from,
// which the network plugin binds to one sandbox, and a credential of which the
// store holds the hash. A sandbox reaches its own job and nothing else.
//
// What a guest sends is hostile: bodies have limits and deadlines, files go
// through os.Root, bytes and counts have quotas, calls and connections per
// address are limited, and free space has a floor. The runner redacts what it
// sends; as a second layer, this package knows the secrets it handed out since
// the daemon started, masks them in log chunks and messages, and flags files
// that hold them.
package guest
