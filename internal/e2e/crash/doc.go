// Package crash tests that nothing is lost, doubled or left behind when the
// daemon and its plugins are killed: the real daemon and the real command line
// over a simulated world, whose log tells what really happened.
package crash
