package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/fault"
)

// logPoll is how often a followed log is looked at: its growth makes no event.
const logPoll = 100 * time.Millisecond

func (s *Server) jobLog(w http.ResponseWriter, r *http.Request) error {
	j, err := s.cfg.Store.Job(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	l := &jobLog{s: s, job: j.ID, offset: queryInt(r, "offset", 0), w: slowWriter{w}}
	defer l.close()
	if err := l.open(); err != nil {
		return err
	}
	if tail := queryInt(r, "tail", 0); tail > 0 && l.file != nil {
		if l.offset, err = tailOffset(l.file, int(tail)); err != nil {
			return fault.New(fault.Internal, "read log: %w", err)
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set(api.LogOffsetHeader, strconv.FormatInt(l.offset, 10))
	w.WriteHeader(http.StatusOK)
	if !queryFlag(r, "follow") {
		return l.copy()
	}
	_ = http.NewResponseController(w).Flush() // the reader learns that there is a job
	return l.follow(r.Context())
}

// jobLog is one reading of a log file, which may not be there yet.
type jobLog struct {
	s      *Server
	job    string
	offset int64
	file   *os.File
	w      http.ResponseWriter
}

func (l *jobLog) open() error {
	if l.file != nil {
		return nil
	}
	f, err := l.s.artifacts.Open(logName(l.job))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.New(fault.Internal, "open log: %w", err)
	}
	l.file = f
	return nil
}

func (l *jobLog) close() {
	if l.file != nil {
		_ = l.file.Close()
	}
}

// copy writes everything from the offset to the present end.
func (l *jobLog) copy() error {
	if err := l.open(); err != nil || l.file == nil {
		return err
	}
	n, err := io.Copy(l.w, io.NewSectionReader(l.file, l.offset, 1<<62-l.offset))
	l.offset += n
	if err != nil {
		return fault.New(fault.Unavailable, "send log: %w", err)
	}
	if n > 0 {
		_ = http.NewResponseController(l.w).Flush()
	}
	return nil
}

// follow copies until the job has ended. It asks for the job's state before the
// last copy, so what came before the end is never missed. When the daemon stops
// it is an error, which cuts the answer: a whole answer means a whole log.
func (l *jobLog) follow(ctx context.Context) error {
	wake, stop := l.s.cfg.Store.Watch()
	defer stop()
	poll := time.NewTicker(logPoll)
	defer poll.Stop()
	for look := true; ; {
		ended := false
		if look {
			j, err := l.s.cfg.Store.Job(ctx, l.job)
			if err != nil {
				return err
			}
			ended = j.State.Ended()
		}
		if err := l.copy(); err != nil || ended {
			return err
		}
		select {
		case <-wake:
			look = true
		case <-poll.C:
			look = false
		case <-ctx.Done():
			return ctx.Err()
		case <-l.s.closing:
			return fault.New(fault.Unavailable, "the daemon stops")
		}
	}
}

// tailOffset finds where the last n lines begin.
func tailOffset(f *os.File, n int) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	buf := make([]byte, 64<<10)
	for at := end; at > 0; {
		size := min(int64(len(buf)), at)
		at -= size
		b := buf[:size]
		if _, err := f.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if at+size == end { // the newline that ends the last line begins none
			b = bytes.TrimSuffix(b, []byte("\n"))
		}
		for {
			i := bytes.LastIndexByte(b, '\n')
			if i < 0 {
				break
			}
			if n--; n == 0 {
				return at + int64(i) + 1, nil
			}
			b = b[:i]
		}
	}
	return 0, nil
}
