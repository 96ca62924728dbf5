// Package bench measures what people wait for, on the real binaries: make bench
// runs it. It judges nothing. Where a figure depends on the machine there is a
// baseline from the same run beside it, and README.md keeps results with the
// machine they are from.
package bench
