// Package record keeps what is known about each VM in a folder of its own:
// the owner mark, the request it was made from, and the running program. The
// files are the only truth; nothing is remembered in memory.
package record
