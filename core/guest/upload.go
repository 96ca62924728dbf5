package guest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/core/disk"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// partsDir holds files that are not whole yet. No job id begins with a dot.
const partsDir = ".parts"

// longestFlag bounds what a row says about secrets in a file, in bytes.
const longestFlag = 1024

func (s *Server) sweepParts() error {
	err := errors.Join(s.artifacts.RemoveAll(partsDir), s.artifacts.Mkdir(partsDir, 0o700))
	if err != nil {
		return fault.New(fault.Internal, "remove cut uploads: %w", err)
	}
	return nil
}

// upload stores one file of a job: into a part, synced, renamed, then its row.
// The same path again replaces file and row. One file of a job at a time, so
// that its quota is counted exactly.
func (s *Server) upload(w http.ResponseWriter, r *http.Request, sb lab.Sandbox) error {
	j, err := s.openJob(r.Context(), sb, r.URL.Query().Get("job"), "upload")
	if err != nil {
		return err
	}
	name, err := guestapi.CleanPath(r.URL.Query().Get("path"))
	if err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	red, err := s.redactor(r.Context(), sb)
	if err != nil {
		return err
	}
	if red.Contains([]byte(name)) { // it goes into rows, events and listings
		return fault.New(fault.Invalid, "path of the file holds a secret")
	}
	unlock, err := s.locks.lock(r.Context(), "upload "+j.ID)
	if err != nil {
		return err
	}
	defer unlock()
	limit, old, err := s.allowance(r.Context(), j.ID, name)
	if err != nil {
		return err
	}
	if r.ContentLength > limit {
		return tooLarge("file is larger than the %d bytes that are left", limit)
	}
	if err := disk.Room(s.dir, max(r.ContentLength, 0), s.limits().DiskFloor); err != nil {
		return s.noRoom(err)
	}
	part := path.Join(partsDir, rand.Text())
	defer func() { _ = s.artifacts.Remove(part) }() // gone already when all went well
	find := red.Finder()
	a, err := s.receive(w, r, part, limit, find)
	if err != nil {
		return err
	}
	a.Flagged = flagged(find.Found(), red.String(r.URL.Query().Get("flagged")))
	// The number of files does not bound these. A runner that was restarted sends
	// all files again, though: those are no news.
	if old.Path != "" && (old.SHA256 != a.SHA256 || old.Flagged != a.Flagged) {
		if err := s.callers.get(sb.Address).tell(); err != nil {
			return err
		}
	}
	a.JobID, a.Path, a.CreatedAt = j.ID, name, time.Now()
	if err := s.keep(r.Context(), part, a); err != nil {
		return err
	}
	return answer(w, http.StatusOK, guestapi.UploadReply{Path: a.Path, Size: a.Size, SHA256: a.SHA256})
}

// allowance is how many bytes the file may have, and the row that it has already.
func (s *Server) allowance(ctx context.Context, jobID, name string) (limit int64, old lab.Artifact, err error) {
	rows, err := s.store.Artifacts(ctx, jobID)
	if err != nil {
		return 0, old, fmt.Errorf("list artifacts: %w", err)
	}
	var files int
	var used int64
	for _, a := range rows {
		switch a.Path {
		case name:
			old = a
		case guestapi.ArtifactLog:
		default:
			files++
			used += a.Size
		}
	}
	limits := s.limits()
	if files >= limits.Files {
		return 0, old, tooLarge("a job has at most %d files", limits.Files)
	}
	if used >= limits.JobBytes {
		return 0, old, tooLarge("the job's %d bytes of artifacts are used up", limits.JobBytes)
	}
	return min(limits.FileBytes, limits.JobBytes-used), old, nil
}

func (s *Server) receive(w http.ResponseWriter, r *http.Request, part string, limit int64, find io.Writer) (a lab.Artifact, err error) {
	f, err := s.artifacts.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return a, s.notWritten("store file", err)
	}
	defer f.Close()
	body := &bodyReader{r: r.Body, rc: http.NewResponseController(w), until: time.Now().Add(longestBody), left: limit, s: s}
	head := make([]byte, 512)
	n, err := io.ReadFull(body, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return a, err
	}
	sum := sha256.New()
	out := io.MultiWriter(f, sum, find)
	if _, err = out.Write(head[:n]); err == nil {
		a.Size, err = io.Copy(out, body)
	}
	if body.err != nil {
		return a, body.err
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return a, s.notWritten("store file", err)
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(stall))
	a.Size += int64(n)
	a.SHA256, a.MIME = hex.EncodeToString(sum.Sum(nil)), http.DetectContentType(head[:n])
	return a, nil
}

// flagged is what a file's row says about secrets in it: what the guest found
// where the host cannot look, in commits, else what the host found.
func flagged(found bool, said string) string {
	if said = strings.TrimSpace(oneLine(said, longestFlag)); said != "" {
		return said
	}
	if found {
		return guestapi.FlaggedSecret
	}
	return ""
}

// keep puts a whole part in its place and writes its row, unless the job has
// ended since the upload began.
func (s *Server) keep(ctx context.Context, part string, a lab.Artifact) error {
	release, err := s.holdFiles(ctx, a.JobID)
	if err != nil {
		return err
	}
	defer release()
	if err := s.place(part, path.Join(a.JobID, a.Path)); err != nil {
		return err
	}
	if err := s.store.PutArtifact(ctx, a); err != nil {
		return fmt.Errorf("record artifact: %w", err)
	}
	return nil
}

// place renames a whole part to its place and syncs the directory.
func (s *Server) place(part, target string) error {
	dir := path.Dir(target)
	err := s.artifacts.MkdirAll(dir, 0o700)
	if err == nil {
		err = s.artifacts.Rename(part, target)
	}
	inTheWay := []error{syscall.ENOTDIR, syscall.EISDIR, syscall.EEXIST, syscall.ENOTEMPTY, fs.ErrExist}
	if slices.ContainsFunc(inTheWay, func(e error) bool { return errors.Is(err, e) }) {
		return fault.New(fault.Conflict, "a file and a directory have the same name")
	}
	if err != nil {
		return s.notWritten("place file", err)
	}
	d, err := s.artifacts.Open(dir)
	if err != nil {
		return fault.New(fault.Internal, "sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fault.New(fault.Internal, "sync directory: %w", err)
	}
	return nil
}

// bodyReader is a body that must keep coming, end in time and stay within its
// limit. err is what to answer when it did not.
type bodyReader struct {
	r     io.Reader
	rc    *http.ResponseController
	until time.Time
	left  int64
	since int64 // bytes since free space was looked at
	s     *Server
	err   error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	deadline := time.Now().Add(stall)
	if deadline.After(b.until) {
		deadline = b.until
	}
	_ = b.rc.SetReadDeadline(deadline)
	n, err := b.r.Read(p)
	b.left -= int64(n)
	b.since += int64(n)
	switch {
	case b.left < 0:
		b.err = tooLarge("file is too large")
	case b.since > 16<<20:
		b.since = 0
		if rerr := disk.Room(b.s.dir, 0, b.s.limits().DiskFloor); rerr != nil {
			b.err = b.s.noRoom(rerr)
		}
	case err != nil && !errors.Is(err, io.EOF):
		b.err = fault.New(fault.Unavailable, "receive file: %w", err)
	}
	if b.err != nil {
		return n, b.err
	}
	return n, err
}
