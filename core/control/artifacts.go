package control

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// logName is where a job's log is below ArtifactsDir.
func logName(jobID string) string { return path.Join(jobID, guestapi.ArtifactLog) }

func (s *Server) jobArtifacts(r *http.Request) (api.List[api.Artifact], error) {
	j, err := s.cfg.Store.Job(r.Context(), r.PathValue("id"))
	if err != nil {
		return api.List[api.Artifact]{}, err
	}
	items, err := s.listArtifacts(r.Context(), j.ID)
	return api.List[api.Artifact]{Items: items}, err
}

// listArtifacts gives the rows, and the log also while it has none: it gets its
// row when the guest has said its last word, which a lost guest never does.
func (s *Server) listArtifacts(ctx context.Context, jobID string) ([]api.Artifact, error) {
	rows, err := s.cfg.Store.Artifacts(ctx, jobID)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(rows, func(a lab.Artifact) bool { return a.Path == guestapi.ArtifactLog }) {
		if st, err := s.artifacts.Stat(logName(jobID)); err == nil {
			rows = append(rows, lab.Artifact{Path: guestapi.ArtifactLog, Size: st.Size(), CreatedAt: st.ModTime()})
		}
	}
	slices.SortFunc(rows, func(a, b lab.Artifact) int { return strings.Compare(a.Path, b.Path) })
	return each(rows, func(a lab.Artifact) api.Artifact {
		return api.Artifact{
			Path: a.Path, Size: a.Size, SHA256: a.SHA256, Flagged: a.Flagged, CreatedAt: a.CreatedAt.UTC(),
			File: filepath.Join(s.cfg.ArtifactsDir, jobID, filepath.FromSlash(a.Path)),
		}
	}).Items, nil
}

// openArtifact opens a file that has a row.
func (s *Server) openArtifact(jobID string, a api.Artifact) (*os.File, error) {
	f, err := s.artifacts.Open(path.Join(jobID, a.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "artifact %q is no longer on disk", a.Path).WithResource("job %s", jobID)
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "open artifact %q: %w", a.Path, err)
	}
	return f, nil
}

func (s *Server) jobArtifact(w http.ResponseWriter, r *http.Request) error {
	j, err := s.cfg.Store.Job(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	items, err := s.listArtifacts(r.Context(), j.ID)
	if err != nil {
		return err
	}
	want := r.PathValue("path")
	i := slices.IndexFunc(items, func(a api.Artifact) bool { return a.Path == want })
	if i < 0 {
		return fault.New(fault.NotFound, "there is no artifact %q", want).WithResource("job %s", j.ID)
	}
	f, err := s.openArtifact(j.ID, items[i])
	if err != nil {
		return err
	}
	defer f.Close()
	h := w.Header()
	download(h, path.Base(want), "application/octet-stream")
	if sum := items[i].SHA256; sum != "" {
		h.Set("Etag", `"`+sum+`"`)
	}
	http.ServeContent(slowWriter{w}, r, "", items[i].CreatedAt, f)
	return nil
}

// download makes the answer a file to be saved: what a guest wrote is never
// shown by a browser as ours.
func download(h http.Header, name, media string) {
	h.Set("Content-Type", media)
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
}

func (s *Server) jobArchive(w http.ResponseWriter, r *http.Request) error {
	j, err := s.cfg.Store.Job(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	items, err := s.listArtifacts(r.Context(), j.ID)
	if err != nil {
		return err
	}
	if len(items) == 0 {
		return fault.New(fault.NotFound, "job has no artifacts").WithResource("job %s", j.ID)
	}
	download(w.Header(), api.ArchiveName, "application/gzip")
	zw, err := gzip.NewWriterLevel(slowWriter{w}, gzip.BestSpeed)
	if err != nil {
		return fault.New(fault.Internal, "compress: %w", err)
	}
	tw := tar.NewWriter(zw)
	for _, a := range items {
		if err := s.pack(tw, j.ID, a); err != nil {
			return err
		}
	}
	return errors.Join(tw.Close(), zw.Close())
}

// pack writes one file as long as it was when it was opened; the log of a
// running job grows meanwhile.
func (s *Server) pack(tw *tar.Writer, jobID string, a api.Artifact) error {
	f, err := s.openArtifact(jobID, a)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fault.New(fault.Internal, "stat artifact %q: %w", a.Path, err)
	}
	err = tw.WriteHeader(&tar.Header{
		Name: a.Path, Size: st.Size(), Mode: 0o644, ModTime: a.CreatedAt, Typeflag: tar.TypeReg, Format: tar.FormatPAX,
	})
	if err != nil {
		return fault.New(fault.Internal, "write archive: %w", err)
	}
	if _, err := io.CopyN(tw, f, st.Size()); err != nil {
		return fault.New(fault.Internal, "write artifact %q to archive: %w", a.Path, err)
	}
	return nil
}

// slowWriter gives each write half a minute, so that a reader that stands still
// does not hold a stream for ever.
type slowWriter struct{ http.ResponseWriter }

const stall = 30 * time.Second

func (w slowWriter) Write(b []byte) (int, error) {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(stall))
	return w.ResponseWriter.Write(b)
}

func (w slowWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
