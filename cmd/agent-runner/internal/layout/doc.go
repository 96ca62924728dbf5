// Package layout knows where things are in a guest: paths, the agent's login,
// and how a file is written so that it survives a power cut.
package layout
