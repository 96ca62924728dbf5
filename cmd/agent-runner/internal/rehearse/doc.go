// Package rehearse has a copy of a memory template, which waits for somebody, do
// once what it will do when it becomes theirs: an emulator translates code when it
// runs for the first time, and that is most of what a start from memory takes.
package rehearse
