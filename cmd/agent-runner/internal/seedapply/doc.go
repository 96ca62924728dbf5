// Package seedapply finds the seed that a VM was born with and makes the guest
// match it, once per instance id.
package seedapply
