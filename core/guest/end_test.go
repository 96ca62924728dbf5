package guest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/guest"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
)

// wantSealed wants the job to have these files and no other, as its rows say.
func (sb *sandbox) wantSealed(paths ...string) {
	h := sb.h
	h.t.Helper()
	rows, err := h.store.Artifacts(h.t.Context(), sb.job)
	h.must(err)
	var got []string
	for _, a := range rows {
		got = append(got, a.Path)
		b := h.read(sb.job, a.Path)
		if sum := sha256.Sum256([]byte(b)); a.Size != int64(len(b)) || a.SHA256 != hex.EncodeToString(sum[:]) {
			h.t.Errorf("%s has %d bytes, its row says %d", a.Path, len(b), a.Size)
		}
	}
	if diff := cmp.Diff(paths, got); diff != "" {
		h.t.Errorf("files of the job (-want +got):\n%s", diff)
	}
}

// TestNothingIsAddedAfterTheEnd lets a chunk and a file be under way when the
// job ends, by its guest's word and by the host's.
func TestNothingIsAddedAfterTheEnd(t *testing.T) {
	ends := map[string]func(sb *sandbox){
		"reported": func(sb *sandbox) {
			_, err := sb.report(guestapi.Report{Job: sb.job, Kind: guestapi.ReportFinished, Status: "completed", Uploaded: true})
			sb.h.must(err)
		},
		"ended by the host": func(sb *sandbox) {
			for _, to := range []lab.JobState{lab.JobRunning, lab.JobTimeout} {
				sb.h.must(sb.h.store.Commit(sb.h.t.Context(), state.Commit{Jobs: []state.JobChange{{ID: sb.job, To: to}}}))
			}
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, guest.Limits{})
			sb := h.addSandbox()
			sb.mustFetch()
			_, _, err := sb.log(sb.job, 0, "one\n")
			h.must(err)
			_, _, err = sb.upload(sb.job, "first.json", []byte("first"))
			h.must(err)

			var statuses [2]int
			var calls sync.WaitGroup
			late := func(status *int, path string) io.WriteCloser {
				r, w := io.Pipe()
				calls.Go(func() { *status, _ = sb.call(http.MethodPost, path, r, nil) })
				_, err := io.WriteString(w, "late ")
				h.must(err)
				return w
			}
			bodies := []io.WriteCloser{
				late(&statuses[0], fmt.Sprintf("%s?job=%s&offset=4", guestapi.LogPath, sb.job)),
				late(&statuses[1], fmt.Sprintf("%s?job=%s&path=late.json", guestapi.UploadPath, sb.job)),
			}
			end(sb)
			for _, w := range bodies {
				_, err := io.WriteString(w, "words\n")
				h.must(err)
				h.must(w.Close())
			}
			calls.Wait()
			if statuses != [2]int{http.StatusPreconditionFailed, http.StatusPreconditionFailed} {
				t.Errorf("what came late was answered %v", statuses)
			}
			if got := h.read(sb.job, "agent.log"); got != "one\n" {
				t.Errorf("log is %q", got)
			}
			want := []string{"agent.log", "first.json"}
			if name == "ended by the host" {
				want = want[1:] // only a report seals the log
			}
			sb.wantSealed(want...)
		})
	}
}

// TestLogIsSealedWhileItGrows reports the end while chunks arrive.
func TestLogIsSealedWhileItGrows(t *testing.T) {
	h := newHost(t, guest.Limits{})
	for range 8 {
		sb := h.addSandbox()
		sb.mustFetch()
		_, _, err := sb.log(sb.job, 0, "line\n")
		h.must(err)
		var writers sync.WaitGroup
		for range 4 {
			writers.Go(func() {
				for offset, status := int64(0), 0; status != http.StatusPreconditionFailed; {
					offset, status, _ = sb.log(sb.job, int(offset), "line\n")
				}
			})
		}
		_, err = sb.report(guestapi.Report{Job: sb.job, Kind: guestapi.ReportFinished, Status: "completed", Uploaded: true})
		writers.Wait()
		h.must(err)
		sb.wantSealed("agent.log")
	}
}
