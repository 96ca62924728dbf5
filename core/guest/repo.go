package guest

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

// repo sends the uploaded repository of the sandbox's own job.
func (s *Server) repo(w http.ResponseWriter, r *http.Request, sb lab.Sandbox) error {
	j, err := s.openJob(r.Context(), sb, r.URL.Query().Get("job"), "repo")
	if err != nil {
		return err
	}
	if j.RepoID == "" {
		return fault.New(fault.NotFound, "the job has no uploaded repository")
	}
	f, err := s.repos.Open(j.RepoID)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "the uploaded repository is gone")
	}
	if err != nil {
		return fault.New(fault.Internal, "open repository: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fault.New(fault.Internal, "stat repository: %w", err)
	}
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Content-Length", strconv.FormatInt(st.Size(), 10))
	w.WriteHeader(http.StatusOK)
	out := &slowWriter{w: w, rc: http.NewResponseController(w), until: time.Now().Add(longestBody)}
	if _, err := io.CopyN(out, f, st.Size()); err != nil {
		s.log.Debug("repository not sent whole", "sandbox", sb.ID, "err", err)
		panic(http.ErrAbortHandler) // the guest sees a cut answer
	}
	return nil
}

// slowWriter gives each write half a minute and all of them together a limit.
type slowWriter struct {
	w     io.Writer
	rc    *http.ResponseController
	until time.Time
}

func (s *slowWriter) Write(p []byte) (int, error) {
	deadline := time.Now().Add(stall)
	if deadline.After(s.until) {
		deadline = s.until
	}
	_ = s.rc.SetWriteDeadline(deadline)
	return s.w.Write(p)
}
