// Package lab is the domain of AgentLab: what a sandbox, a job, an operation
// and an event are, which states they pass through, and nothing about how any
// of it is stored, sent or made. It imports only the standard library.
package lab
