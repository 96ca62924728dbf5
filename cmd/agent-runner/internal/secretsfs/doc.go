// Package secretsfs lays out a sandbox's secrets on tmpfs, where the agent's
// user can read them and no disk keeps them.
package secretsfs
