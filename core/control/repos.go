package control

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/disk"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

// partPrefix begins the name of an upload that is not whole yet.
const partPrefix = ".part-"

// sweepUploads removes uploads that a crash cut short.
func sweepUploads(repos *os.Root, log hclog.Logger) {
	entries, err := fs.ReadDir(repos.FS(), ".")
	if err != nil {
		log.Warn("look for cut uploads", "err", err)
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), partPrefix) {
			if err := repos.Remove(e.Name()); err != nil {
				log.Warn("remove cut upload", "err", err)
			}
		}
	}
}

// uploadRepo stores a repository archive: written whole and synced under
// another name, then its row, then the rename. A row whose file never came is
// collected like any upload that no job takes; a file without a row would stay.
func (s *Server) uploadRepo(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength > api.MaxRepo {
		return tooLarge()
	}
	if err := s.roomFor(max(r.ContentLength, 0)); err != nil {
		return err
	}
	part := partPrefix + rand.Text()
	size, err := s.receive(w, r, part)
	if err != nil {
		_ = s.repos.Remove(part)
		return err
	}
	repo := state.Repo{ID: lab.NewID("repo"), Size: size, CreatedAt: time.Now()}
	if err := s.cfg.Store.PutRepo(r.Context(), repo); err != nil {
		_ = s.repos.Remove(part)
		return err
	}
	if err := s.repos.Rename(part, repo.ID); err != nil {
		_ = s.repos.Remove(part)
		return fault.New(fault.Internal, "store repository: %w", err)
	}
	return answer(w, http.StatusCreated, api.Repo{ID: repo.ID, Size: repo.Size})
}

// deleteRepo removes an upload that no job took. What a crash leaves of it is
// collected like any other.
func (s *Server) deleteRepo(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if err := s.cfg.Store.GiveUpRepo(r.Context(), id); err != nil {
		return err
	}
	if err := s.repos.Remove(id); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Internal, "remove repository: %w", err)
	}
	if err := s.cfg.Store.DeleteRepo(r.Context(), id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) receive(w http.ResponseWriter, r *http.Request, part string) (int64, error) {
	f, err := s.repos.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, fault.New(fault.Internal, "store repository: %w", err)
	}
	defer f.Close()
	body := &uploadReader{r: r.Body, rc: http.NewResponseController(w), s: s, left: api.MaxRepo}
	head := make([]byte, 512)
	n, err := io.ReadFull(body, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, err
	}
	first, err := tar.NewReader(bytes.NewReader(head[:n])).Next()
	if err != nil || first.Name != "meta.json" {
		return 0, fault.New(fault.Invalid, "body is not a repository archive").
			WithHint("agentlab job run --repo PATH makes one")
	}
	if _, err := f.Write(head[:n]); err != nil {
		return 0, writeError(err)
	}
	size, err := io.Copy(struct{ io.Writer }{f}, body)
	if err != nil {
		if fault.ClassOf(err) == fault.Internal {
			err = writeError(err)
		}
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, writeError(err)
	}
	return size + int64(n), nil
}

func writeError(err error) error { return disk.Written("store repository", err) }

func tooLarge() error {
	return statusError{http.StatusRequestEntityTooLarge, fault.New(fault.Exhausted, "repository is larger than %d MiB", api.MaxRepo>>20).
		WithHint("use a URL, or a shallow clone")}
}

// roomFor refuses what would go below the free-space floor.
func (s *Server) roomFor(n int64) error { return disk.Room(s.cfg.ReposDir, n, s.cfg.DiskFloor) }

// uploadReader is a body that must keep coming and stay within its quota.
type uploadReader struct {
	r       io.Reader
	rc      *http.ResponseController
	s       *Server
	left    int64 // bytes of quota
	sinceOK int64 // bytes since free space was looked at
}

func (u *uploadReader) Read(p []byte) (int, error) {
	_ = u.rc.SetReadDeadline(time.Now().Add(stall))
	n, err := u.r.Read(p)
	if u.left -= int64(n); u.left < 0 {
		return n, tooLarge()
	}
	if u.sinceOK += int64(n); u.sinceOK > 16<<20 {
		u.sinceOK = 0
		if err := u.s.roomFor(0); err != nil {
			return n, err
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return n, fault.New(fault.Unavailable, "receive repository: %w", err)
	}
	return n, err
}
