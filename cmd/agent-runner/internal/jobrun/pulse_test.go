package jobrun

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/fault"
)

// moody answers reports as told.
type moody struct {
	Host
	answer func(r guestapi.Report) (guestapi.ReportReply, error)
}

func (m moody) Report(_ context.Context, r guestapi.Report) (guestapi.ReportReply, error) {
	return m.answer(r)
}

// beatFor runs a pulse and gives why it cancelled, and after how long.
func beatFor(t *testing.T, span time.Duration, answer func(guestapi.Report) (guestapi.ReportReply, error)) (after time.Duration, cause error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), span)
	defer stop()
	started := time.Now()
	p := newPulse("j", 2*time.Second, moody{answer: answer}, func(c error) {
		if cause == nil {
			cause, after = c, time.Since(started)
		}
	}, hclog.NewNullLogger())
	p.stage("clone")
	p.stage("agent")
	p.run(ctx)
	return after, cause
}

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		calls := 0
		_, cause := beatFor(t, time.Minute, func(r guestapi.Report) (guestapi.ReportReply, error) {
			if calls++; calls < 5 {
				return guestapi.ReportReply{}, fault.New(fault.Unavailable, "down")
			}
			got = append(got, r.Kind+r.Stage)
			return guestapi.ReportReply{}, nil
		})
		if cause != nil || len(got) < 20 || got[0] != "stageclone" || got[1] != "stageagent" || got[2] != "heartbeat" {
			t.Errorf("cause %v, reports %v", cause, got)
		}
	})
}

func TestPulseCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := func(guestapi.Report) (guestapi.ReportReply, error) {
			return guestapi.ReportReply{}, fault.New(fault.Unavailable, "down")
		}
		if _, cause := beatFor(t, time.Hour, down); cause != nil {
			t.Errorf("a host that is down cancels: %v", cause)
		}
		refusing := func(guestapi.Report) (guestapi.ReportReply, error) {
			return guestapi.ReportReply{}, fault.New(fault.Denied, "revoked")
		}
		if after, cause := beatFor(t, time.Hour, refusing); !errors.Is(cause, errRefused) || after < refusedFor {
			t.Errorf("a host that refuses: %v after %v", cause, after)
		}
		wish := func(guestapi.Report) (guestapi.ReportReply, error) { return guestapi.ReportReply{Cancel: true}, nil }
		if after, cause := beatFor(t, time.Minute, wish); !errors.Is(cause, errCancelled) || after > time.Second {
			t.Errorf("a wish to cancel: %v after %v", cause, after)
		}
	})
}
