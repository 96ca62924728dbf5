// Package archtest holds the rules of the architecture as tests: who may
// import whom, who may serve HTTP, how long a file may be, and that every
// package says what it does.
package archtest
