package guest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/core/disk"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

const longestChunk = 512 << 10 // bytes; a runner sends half of it

// appendLog adds a chunk to the job's log if it begins where the log ends; else
// 409 with the offset to go on from. Of a chunk that goes over the quota the
// part that fits is kept, and the answer is 413.
func (s *Server) appendLog(w http.ResponseWriter, r *http.Request, sb lab.Sandbox) error {
	j, err := s.openJob(r.Context(), sb, r.URL.Query().Get("job"), "log")
	if err != nil {
		return err
	}
	offset, err := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64)
	if err != nil || offset < 0 {
		return fault.New(fault.Invalid, "offset is not a number of bytes")
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(stall))
	chunk, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longestChunk))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return fault.New(fault.Invalid, "a chunk has at most %d bytes", longestChunk)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "read chunk: %w", err)
	}
	red, err := s.redactor(r.Context(), sb)
	if err != nil {
		return err
	}
	chunk = maskLines(red, chunk)
	status, size, err := s.writeLog(r.Context(), j.ID, offset, chunk)
	if err != nil {
		return err
	}
	return answer(w, status, guestapi.LogReply{Offset: size})
}

func (s *Server) writeLog(ctx context.Context, jobID string, offset int64, chunk []byte) (status int, size int64, err error) {
	if err := disk.Room(s.dir, int64(len(chunk)), s.limits().DiskFloor); err != nil {
		return 0, 0, s.noRoom(err)
	}
	release, err := s.holdFiles(ctx, jobID)
	if err != nil {
		return 0, 0, err
	}
	defer release()
	f, err := s.openLog(jobID)
	if err != nil {
		return 0, 0, s.notWritten("open log", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, 0, fault.New(fault.Internal, "stat log: %w", err)
	}
	if size = st.Size(); offset != size {
		return http.StatusConflict, size, nil
	}
	status = http.StatusOK
	if left := max(s.limits().LogBytes-size, 0); int64(len(chunk)) > left {
		status, chunk = http.StatusRequestEntityTooLarge, chunk[:left]
	}
	if _, err := f.WriteAt(chunk, size); err != nil {
		_ = f.Truncate(size) // half a chunk would shift every later offset
		return 0, 0, s.notWritten("write log", err)
	}
	return status, size + int64(len(chunk)), nil
}

func (s *Server) openLog(jobID string) (*os.File, error) {
	if err := s.artifacts.MkdirAll(jobID, 0o700); err != nil {
		return nil, err
	}
	return s.artifacts.OpenFile(path.Join(jobID, guestapi.ArtifactLog), os.O_CREATE|os.O_RDWR, 0o600)
}

// notWritten is disk.Written for guests: a full disk is the host's affair.
func (s *Server) notWritten(what string, err error) error { return s.noRoom(disk.Written(what, err)) }

// noRoom tells the host's log, and the guest no more than that it must wait.
func (s *Server) noRoom(err error) error {
	if fault.ClassOf(err) != fault.Exhausted {
		return err
	}
	s.log.Warn("guest data refused", "err", err)
	return &fault.Error{Class: fault.Exhausted, Message: "the host has no room", RetryAfter: 10 * time.Second}
}
