// Package flows ends connections that the kernel tracks.
package flows
