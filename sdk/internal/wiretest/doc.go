// Package wiretest serves a driver in process and fills values to the last
// field, for tests that nothing is lost on the wire.
package wiretest
