// Package policy decides what one sandbox may reach: it checks and normalises
// what was asked for, and answers whether a single flow is permitted.
package policy
