// Package pin writes the SHA-256 of plugins' binaries into the configuration
// file, and compares what is written there. It changes nothing else of the file.
package pin
