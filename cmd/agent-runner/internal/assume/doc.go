// Package assume makes of a copy of a memory template a guest of its own: one
// function a duty, in an order in which nothing secret is made before the
// copy's random numbers are its own, and nothing is reachable before its
// address is right. It starts no program: in an emulated guest each would cost
// a tenth of a second.
package assume
