// Package wire carries errors of sdk/fault across gRPC: Status on the side that
// fails, Error on the side that asked. What a person needs to act survives the
// way: class, message, hint, resource, holder, the failed command and its last
// words.
package wire
