// Package jobrun runs one job from its checkout to its last report, and goes
// on after a restart without ever running the agent twice.
package jobrun
