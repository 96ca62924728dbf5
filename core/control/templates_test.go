package control

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// slowPlugins hang while hangs is set. The secrets plugin takes a second.
type slowPlugins struct {
	Profiles
	hangs atomic.Bool
	asked atomic.Int64
}

func (p *slowPlugins) Spec(string) (lab.Spec, error) {
	return lab.Spec{Template: "debian-12", NetworkMode: "nat", Bundle: "default"}, nil
}

func (p *slowPlugins) ListTemplates(ctx context.Context) ([]hypervisor.Template, error) {
	p.asked.Add(1)
	if p.hangs.Load() {
		<-ctx.Done()
		return nil, fault.New(fault.Unavailable, "plugin qemu: %w", ctx.Err())
	}
	return []hypervisor.Template{{VMID: 9000, Name: "debian-12"}}, nil
}

func (p *slowPlugins) List(ctx context.Context) ([]string, error) {
	select {
	case <-ctx.Done():
		return nil, fault.New(fault.Unavailable, "plugin secrets-age: %w", ctx.Err())
	case <-time.After(time.Second):
		return []string{"default"}, nil
	}
}

func (p *slowPlugins) Describe(context.Context, string) (secrets.Description, error) {
	return secrets.Description{Keys: []string{"version"}}, nil
}

// TestHungHypervisorHoldsUpNoRequestForLong sends requests in parallel, as they
// come when a plugin begins to hang.
func TestHungHypervisorHoldsUpNoRequestForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &slowPlugins{}
		s := &Server{cfg: Config{Profiles: p, Hypervisor: p, Secrets: p}}
		burst := func(template string) (errs [5]error, took time.Duration) {
			began := time.Now()
			var requests sync.WaitGroup
			for i := range errs {
				requests.Go(func() {
					if template == "" {
						_, errs[i] = s.checkProfile(t.Context(), "p", true)
					} else {
						_, errs[i] = s.findTemplate(t.Context(), template)
					}
				})
			}
			requests.Wait()
			return errs, time.Since(began)
		}
		for _, step := range []struct {
			name     string
			pause    time.Duration
			hangs    bool
			template string // "" checks a whole profile
			class    fault.Class
			took     time.Duration
			asked    int64
		}{
			{"first", 0, false, "", "", time.Second, 1},
			{"fresh", 0, true, "", "", time.Second, 0},
			{"begins to hang", templatesFresh, true, "", "", askTimeout + time.Second, 1},
			{"known to hang", 0, true, "", "", time.Second, 0},
			{"still hangs", templatesFresh, true, "", "", askTimeout + time.Second, 1},
			{"not known", 0, true, "windows", fault.Unavailable, askTimeout, 1},
			{"not there", 0, false, "windows", fault.Invalid, 0, 1},
		} {
			time.Sleep(step.pause)
			p.hangs.Store(step.hangs)
			p.asked.Store(0)
			errs, took := burst(step.template)
			for _, err := range errs {
				if step.class == "" && err != nil || step.class != "" && !errors.Is(err, step.class) {
					t.Errorf("%s: error %v, want class %q", step.name, err, step.class)
				}
			}
			if asked := p.asked.Load(); took != step.took || step.took > 0 && asked != step.asked {
				t.Errorf("%s: took %s and %d questions, want %s and %d", step.name, took, asked, step.took, step.asked)
			}
		}
	})
}

// The hint offers what would work, each once.
func TestHintOffersWholeTemplatesOnce(t *testing.T) {
	broken := hypervisor.Template{VMID: 9001, Name: "broken", Findings: []plugin.Finding{{ID: "disk", Level: plugin.LevelMissing, Message: "no disk"}}}
	whole := hypervisor.Template{VMID: 9000, Name: "debian-12", Findings: []plugin.Finding{{ID: "old", Level: plugin.LevelWarning, Message: "old"}}}
	s := &Server{cfg: Config{Hypervisor: listed{whole, broken, whole}}}
	_, err := s.findTemplate(t.Context(), "windows")
	if got := fault.HintOf(err); got != "templates: debian-12 (9000)" {
		t.Errorf("%v, hint %q", err, got)
	}
	if _, err := s.findTemplate(t.Context(), "broken"); !errors.Is(err, fault.Precondition) {
		t.Errorf("a broken template: %v", err)
	}
}

// listed are templates.
type listed []hypervisor.Template

func (l listed) ListTemplates(context.Context) ([]hypervisor.Template, error) { return l, nil }
