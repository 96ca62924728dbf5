package spawn

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// groupRetry is how long the kernel refuses a second change, see
// proc_sched_autogroup_set_nice in kernel/sched/autogroup.c.
const groupRetry = 110 * time.Millisecond

// GiveWay has others go before the program, where the kernel weighs sessions and not
// their programs (autogroup in sched(7)): elsewhere nothing changes. Compete takes it back.
func (p *Program) GiveWay() { _ = p.groupPriority(lowest) }

// Compete has the program go before none and after none again.
func (p *Program) Compete() error {
	if err := p.groupPriority(0); err != nil {
		return fault.New(fault.Unavailable, "raise priority of pid %d: %w", p.PID, err)
	}
	return nil
}

func (p *Program) groupPriority(nice int) error {
	set := func() error {
		return os.WriteFile("/proc/"+strconv.Itoa(p.PID)+"/autogroup", []byte(strconv.Itoa(nice)), 0)
	}
	err := set()
	if errors.Is(err, syscall.EAGAIN) {
		time.Sleep(groupRetry)
		err = set()
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
