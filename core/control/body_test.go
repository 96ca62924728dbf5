package control

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// TestAnswersOutliveTheBodysTime shows that the time a body may take does not end
// answers that take longer: followed logs, events, waits.
func TestAnswersOutliveTheBodysTime(t *testing.T) {
	s := &Server{log: hclog.NewNullLogger(), bodyTimeout: 50 * time.Millisecond}
	slow := stream("/x", "x", "", "", "text/plain", func(w http.ResponseWriter, r *http.Request) error {
		select {
		case <-r.Context().Done():
			return r.Context().Err()
		case <-time.After(8 * s.bodyTimeout):
		}
		_, err := w.Write([]byte("whole"))
		return err
	})
	ended := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.takeBody(w, r)
		ended <- slow.serve(w, r)
	}))
	defer srv.Close()
	resp, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if err := <-ended; err != nil {
		t.Errorf("the answer was cut: %v", err)
	}
}
