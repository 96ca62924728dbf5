// Package gitrepo moves a repository into a sandbox and its commits back out.
//
// Pack writes an archive of the user's repository, Unpack makes a checkout of
// it in the guest, MakeChanges writes a bundle of what was committed there and
// Fetch brings that bundle into the user's repository as a branch. No call
// runs a hook, a filter or any other program that a repository names, and none
// changes the user's checkout.
//
// An archive is a tar stream of at most three files in this order: meta.json
// (a Meta), shallow (git's list of cut-off commits, only for a shallow
// repository) and repo.bundle.
package gitrepo
