// Package fault gives every error of AgentLab a class, and a place for what a
// person needs to act on it.
//
// Errors get their class once, where the outside world answers: in a plugin's
// driver, in the store, at the API. Code between only wraps with %w and asks
// with errors.Is:
//
//	if errors.Is(err, fault.NotFound) { … }
//
// A class survives the plugin wire, the control API and the guest API, so the
// question means the same on both sides of a process boundary.
package fault
