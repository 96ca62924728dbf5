// Package state keeps the rows that AgentLab is about, in one SQLite file.
//
// It is the only package that speaks SQL. Every method is one transaction; a
// change and the event that tells about it share it. State changes are
// compare-and-set against the tables of core/lab, so two writers that race
// never both win: the second gets fault.Conflict and reads again.
//
// Times are stored with a precision of one millisecond, in UTC. No method does
// anything but read and write the file while it holds a transaction.
package state
