// Package enroll makes a guest known to its host: it keeps the sandbox's
// credential and gets the payload with it.
package enroll
