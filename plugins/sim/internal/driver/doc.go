// Package driver fulfils the four plugin contracts over a simulated world. The
// drivers hold nothing themselves: another process over the same world goes on
// where a killed one ended.
package driver
