// Command agent-runner is the program inside every guest: it applies the seed
// at boot, makes the guest known to its host and runs the sandbox's job.
package main
