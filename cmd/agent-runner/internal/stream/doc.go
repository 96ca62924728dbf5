// Package stream keeps a job's log: it redacts what the agent prints, spools
// it on disk up to the log's quota, and brings it to the host however often
// the connection breaks.
package stream
