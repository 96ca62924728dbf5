// Package volume keeps what is known about each volume in a folder of its own:
// the owner mark, its size, who has it, its snapshots. The files are the only
// truth; nothing is remembered in memory.
package volume
