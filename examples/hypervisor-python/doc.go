// Package python has the test of an example that is not written in Go: a
// hypervisor plugin in Python, which does without the sdk.
package python
