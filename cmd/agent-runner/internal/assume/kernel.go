package assume

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/card"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/seed"
)

// Real is this guest's kernel. Call done when it has done its part.
func Real(l layout.Layout) (k Kernel, done func()) {
	var nic *card.Card
	return Kernel{
		AddEntropy: func(b []byte) error { return addEntropy(l, b) },
		SetMAC: func(mac string) (err error) {
			if nic, err = card.Open(l); err != nil {
				return err
			}
			return nic.SetMAC(mac)
		},
		Configure:   func(n seed.NetworkConfig, mac string) error { return nic.Configure(n, mac) },
		SetHostname: setHostname,
		SetTime:     setTime,
	}, func() { nic.Close() }
}

func setHostname(name string) error { return unix.Sethostname([]byte(name)) }

func setTime(t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}
