package scheduler

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// guest is what runs in a VM. It behaves as the job's task says, by words:
// "mute" never says hello, "idle" never begins its job, "hang" never ends it,
// "silent" says nothing after its start, "off" powers off in mid-job,
// "stubborn" ignores a cancel; with none it completes.
type guest struct {
	helloed bool
	began   time.Time
	told    bool      // its report was taken
	next    time.Time // when it does something again
}

// rest is how long a guest that has said hello does nothing, and idle how long
// one whose own job has ended. Simulated hours pass in these tests, and what
// costs them real time is asking the store.
const (
	rest = 5 * time.Second
	idle = time.Minute
)

// live plays all guests until ctx ends.
func (b *bench) live(ctx context.Context) {
	for ctx.Err() == nil {
		b.world.mu.Lock()
		running := map[uint32]machine{}
		for id, m := range b.world.vms {
			if m.power == hypervisor.PowerOn && strings.HasPrefix(m.owner, lab.OwnerPrefix("host")) && !time.Now().Before(m.guest.next) {
				running[id] = *m
			}
		}
		b.world.mu.Unlock()
		for id, m := range running {
			b.play(ctx, id, &m)
		}
		sleep(ctx, time.Second)
	}
}

func (b *bench) play(ctx context.Context, id uint32, m *machine) {
	task := b.task
	if strings.Contains(task, "mute") {
		return
	}
	address := netip.MustParsePrefix(m.nic.AddressCIDR).Addr()
	if !m.guest.helloed {
		hash := sha256.Sum256([]byte(m.seed))
		_, err := b.store.Exchange(ctx, state.Exchange{
			Address: address, TokenHash: hash[:], CredentialHash: hash[:], HostKey: "ssh-ed25519 k", BootID: "b", Now: time.Now(),
		})
		if err != nil {
			b.denied.Add(1)
			return
		}
		m.guest.helloed = true
	}
	m.guest.next = time.Now().Add(rest)
	b.keepGuest(id, m)
	sb, err := b.store.SandboxByAddress(ctx, address)
	if err == nil && sb.JobID != "" && !strings.Contains(task, "idle") {
		b.playJob(ctx, id, m, sb.JobID)
	}
}

func (b *bench) keepGuest(id uint32, m *machine) {
	b.world.mu.Lock()
	defer b.world.mu.Unlock()
	if now := b.world.vms[id]; now != nil && now.owner == m.owner {
		now.guest = m.guest
	}
}

func (b *bench) playJob(ctx context.Context, id uint32, m *machine, jobID string) {
	if m.guest.began.IsZero() {
		m.guest.began = time.Now()
		b.keepGuest(id, m)
		_, _ = b.store.JobSeen(ctx, jobID, "agent", time.Now())
		return
	}
	if strings.Contains(b.task, "silent") {
		return
	}
	if strings.Contains(b.task, "off") {
		b.world.setPower(id, hypervisor.PowerOff)
		return
	}
	cancel, err := b.store.JobSeen(ctx, jobID, "agent", time.Now())
	if err != nil {
		b.letRest(id, m)
		return
	}
	report := lab.JobReport{Status: "completed", Uploaded: !strings.Contains(b.task, "lost"), At: time.Now()}
	switch {
	case cancel && !strings.Contains(b.task, "stubborn"):
		report.Status = "cancelled"
	case strings.Contains(b.task, "hang") || time.Since(m.guest.began) < 20*time.Second:
		return
	case strings.Contains(b.task, "exit3"):
		report.Status, report.ExitCode = "failed", 3
	}
	if b.store.JobReported(ctx, jobID, report) != nil {
		return
	}
	if m.guest.told { // twice, as one whose answer was lost
		b.letRest(id, m)
	}
	m.guest.told = true
	b.keepGuest(id, m)
}

func (b *bench) letRest(id uint32, m *machine) {
	m.guest.next = time.Now().Add(idle)
	b.keepGuest(id, m)
}
