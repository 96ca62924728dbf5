package enroll_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/enroll"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/fault"
)

// daemon binds token and credential as the real one does.
type daemon struct {
	bound    string
	lose     int  // answers lost after they took effect
	down     int  // calls that do not arrive
	expired  bool // the token is no longer taken
	refusing bool
	calls    int
}

func (d *daemon) Fetch(_ context.Context, r guestapi.FetchRequest) (guestapi.Payload, error) {
	d.calls++
	if d.down > 0 {
		d.down--
		return guestapi.Payload{}, fault.New(fault.Unavailable, "down")
	}
	if d.refusing {
		return guestapi.Payload{}, fault.New(fault.Denied, "no")
	}
	if r.Token != "" {
		if d.expired || r.Token != "tok" || (d.bound != "" && d.bound != r.Credential) {
			return guestapi.Payload{}, fault.New(fault.Denied, "token")
		}
		d.bound = r.Credential
	} else if d.bound == "" {
		return guestapi.Payload{}, fault.New(fault.Denied, "credential")
	}
	if d.lose > 0 {
		d.lose--
		return guestapi.Payload{}, fault.New(fault.Unavailable, "answer lost")
	}
	return guestapi.Payload{Sandbox: "sbx_1"}, nil
}

func newGuest(t *testing.T) layout.Layout {
	t.Helper()
	l := layout.Layout{Root: t.TempDir()}
	for path, text := range map[string]string{
		l.Bootstrap():        `{"token":"tok","controller":"http://c","sandbox":"sbx_1","vmid":7}`,
		l.HostKey() + ".pub": "ssh-ed25519 AAAA\n",
	} {
		if err := layout.WriteFile(path, []byte(text), 0o600, layout.Owner{}); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func boot(t *testing.T, l layout.Layout, d *daemon, console *strings.Builder) error {
	t.Helper()
	log := hclog.NewNullLogger()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	id, err := enroll.Load(ctx, l, log)
	if err != nil {
		t.Fatal(err)
	}
	p, err := enroll.Fetch(ctx, enroll.Config{Layout: l, Host: d, Log: log, Console: func(s string) { console.WriteString(s) }}, id)
	if err == nil && p.Sandbox != "sbx_1" {
		t.Errorf("payload %+v", p)
	}
	return err
}

func TestFetchSurvivesEverything(t *testing.T) {
	for name, d := range map[string]*daemon{
		"plain": {}, "host down": {down: 50}, "answers lost": {lose: 3}, "both": {down: 3, lose: 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newGuest(t)
			var console strings.Builder
			for range 3 { // first boot and two reboots
				if err := boot(t, l, d, &console); err != nil || console.Len() > 0 {
					t.Errorf("%s: %v, console %q", name, err, &console)
				}
			}
			b, _ := os.ReadFile(l.Bootstrap())
			if strings.Contains(string(b), "tok\"") && strings.Contains(string(b), `"token": "tok"`) {
				t.Errorf("%s: the token is still there: %s", name, b)
			}
			if st, err := os.Stat(l.Credential()); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("%s: credential %v %v", name, st, err)
			}
		})
	}
}

// The token was used and has expired since, but the guest died before it noted
// that: the credential must do.
func TestFetchAfterTokenExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newGuest(t)
		id, err := enroll.Load(t.Context(), l, hclog.NewNullLogger())
		if err != nil {
			t.Fatal(err)
		}
		var console strings.Builder
		d := &daemon{bound: id.Credential.Reveal(), expired: true}
		if err := boot(t, l, d, &console); err != nil || console.Len() > 0 {
			t.Errorf("%v, console %q", err, &console)
		}
	})
}

func TestFetchRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var console strings.Builder
		d := &daemon{refusing: true}
		if err := boot(t, newGuest(t), d, &console); err == nil {
			t.Error("no error")
		}
		if !strings.Contains(console.String(), "refuses this sandbox") || d.calls > 200 {
			t.Errorf("%d calls in an hour, console %q", d.calls, &console)
		}
	})
}

func TestLoadWaitsForBootstrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newGuest(t)
		if err := os.Rename(l.Bootstrap(), l.Bootstrap()+".later"); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Minute)
			_ = os.Rename(l.Bootstrap()+".later", l.Bootstrap())
		}()
		if id, err := enroll.Load(t.Context(), l, hclog.NewNullLogger()); err != nil || id.Bootstrap.VMID != 7 {
			t.Errorf("%+v %v", id, err)
		}
	})
}
