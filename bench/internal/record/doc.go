// Package record keeps what a run of the benchmarks measured, so that tables and
// pictures can be made of it.
package record
