// Package disk tells how much room a directory has left and refuses what would
// take the last of it.
package disk
