package assume

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/seed"
)

// Real is this guest's kernel. Call done when it has done its part.
func Real(l layout.Layout) (k Kernel, done func()) {
	var nic *card
	return Kernel{
		AddEntropy: func(b []byte) error { return addEntropy(l, b) },
		SetMAC: func(mac string) (err error) {
			if nic, err = openCard(l); err != nil {
				return err
			}
			return nic.setMAC(mac)
		},
		Configure:   func(n seed.NetworkConfig, mac string) error { return nic.configure(l, n, mac) },
		SetHostname: func(name string) error { return unix.Sethostname([]byte(name)) },
		SetTime: func(t time.Time) error {
			ts := unix.NsecToTimespec(t.UnixNano())
			return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
		},
	}, func() { nic.close() }
}
