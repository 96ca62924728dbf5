package bench_test

import (
	"encoding/binary"
	"os"
	"testing"
)

// Sizes of SQLite's write-ahead log, https://www.sqlite.org/fileformat2.html#walformat.
const (
	walHeader   = 32
	frameHeader = 24
)

// walCommits is how many commits a write-ahead log holds. A log that was begun
// anew in between has another salt.
type walCommits struct {
	salt uint64
	n    int
}

func (w walCommits) since(before walCommits) (int, bool) {
	return w.n - before.n, w.salt == before.salt && w.salt != 0
}

func readWAL(b *testing.B, path string) walCommits {
	b.Helper()
	log, err := os.ReadFile(path)
	if os.IsNotExist(err) || err == nil && len(log) < walHeader {
		return walCommits{}
	}
	if err != nil {
		b.Fatal(err)
	}
	be := binary.BigEndian
	out := walCommits{salt: be.Uint64(log[16:])}
	step := frameHeader + int(be.Uint32(log[8:]))
	for at := walHeader; at+step <= len(log); at += step {
		frame := log[at:]
		if be.Uint64(frame[8:]) != out.salt {
			break // left over from an earlier log
		}
		if be.Uint32(frame[4:]) != 0 { // the database's size after a commit
			out.n++
		}
	}
	return out
}
