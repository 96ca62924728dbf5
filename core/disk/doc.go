// Package disk opens the daemon's directories, tells how much room they have
// left and refuses what would take the last of it.
package disk
