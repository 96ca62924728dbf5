package guest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/guest"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/fault"
)

// A guest that always has something new to say must not fill the database.
func TestNewsIsBounded(t *testing.T) {
	const calls, most = 150, 115
	for name, call := range map[string]func(sb *sandbox, i int) error{
		"stage": func(sb *sandbox, i int) error {
			_, err := sb.report(guestapi.Report{Job: sb.job, Kind: guestapi.ReportStage, Stage: []string{"a", "b"}[i%2]})
			return err
		},
		"hello": func(sb *sandbox, i int) error {
			req := guestapi.FetchRequest{HostKey: sb.hostKey, BootID: fmt.Sprint(i), Runner: "1"}
			_, err := sb.call("POST", guestapi.FetchPath, req, nil)
			return err
		},
		"upload": func(sb *sandbox, i int) error {
			_, _, err := sb.upload(sb.job, "same", []byte(fmt.Sprint(i)))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, guest.Limits{})
			sb := h.addSandbox()
			sb.mustFetch()
			refused := 0
			for i := range calls { // one of them may be taken whenever enough time has passed
				if err := call(sb, i); err != nil {
					wantClass(t, err, fault.Unavailable)
					refused++
				}
			}
			if refused == 0 {
				t.Errorf("none of %d calls was refused", calls)
			}
			events, err := h.store.Events(t.Context(), state.EventFilter{SandboxID: sb.id})
			h.must(err)
			if len(events) > most {
				t.Errorf("%d events of %d calls", len(events), calls)
			}
			if _, err := sb.report(guestapi.Report{Job: sb.job, Kind: guestapi.ReportHeartbeat}); err != nil {
				t.Errorf("a heartbeat is refused as well: %v", err)
			}
		})
	}
}

// A runner that was restarted while it uploaded sends all files again.
func TestUploadAgainIsNoNews(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	sb.mustFetch()
	const files = 150 // more than the host takes news of
	for _, text := range []string{"same", "same", "other"} {
		var err error
		for i := 0; i < files && err == nil; i++ {
			_, _, err = sb.upload(sb.job, fmt.Sprint("f", i), []byte(text))
		}
		if (err != nil) != (text == "other") {
			t.Errorf("%s: %v", text, err)
		}
	}
	if got := h.read(sb.job, "f0"); got != "other" {
		t.Errorf("a file that was replaced holds %q", got)
	}
	rows, err := h.store.Artifacts(t.Context(), sb.job)
	h.must(err)
	events, err := h.store.Events(t.Context(), state.EventFilter{SandboxID: sb.id, Types: []string{lab.EventArtifactStored}, Limit: 1000})
	h.must(err)
	if len(rows) != files || len(events) < files || len(events) >= 2*files {
		t.Errorf("%d rows, %d events of %d files", len(rows), len(events), files)
	}
}

// The name of a file reaches rows, events and listings, where nothing hides it.
func TestNoSecretInAName(t *testing.T) {
	h := newHost(t, guest.Limits{})
	sb := h.addSandbox()
	sb.mustFetch()
	_, _, err := sb.upload(sb.job, "out/"+planted+".txt", []byte("x"))
	wantClass(t, err, fault.Invalid)
	if err != nil && strings.Contains(err.Error(), planted) {
		t.Error("the refusal says it")
	}
	rows, err := h.store.Artifacts(t.Context(), sb.job)
	h.must(err)
	if len(rows) != 0 {
		t.Errorf("rows %+v", rows)
	}
}
