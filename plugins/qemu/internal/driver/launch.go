package driver

import (
	"os"

	"github.com/agentlab/agentlab/plugins/qemu/internal/accel"
	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/plugins/qemu/internal/spawn"
	"github.com/agentlab/agentlab/sdk/fault"
)

// launch is a QEMU to start, of a VM or of a template that is being made.
type launch struct {
	machine    machine.Machine // without descriptors
	dir        string          // where its sockets go
	uid        uint32
	tap        func() (*os.File, error)
	ram        *os.File // nil: QEMU's own memory
	shared     bool     // what the guest writes goes to ram
	state      *os.File // may be nil
	background bool
}

// stateFile is the descriptor of launch.state as QEMU sees it.
const stateFile = spawn.FirstFile + 4

// launch opens what QEMU is handed and starts it, paused.
func (d *Driver) launch(l launch) (*spawn.Program, error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for _, name := range []string{monitorName, channelName} {
		f, err := spawn.Listen(l.dir, name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	tap, err := l.tap()
	if err != nil {
		return nil, err
	}
	files = append(files, tap)
	var groups []uint32
	if l.machine.Accel.Name == accel.KVM {
		if groups, err = accel.DeviceGroups(d.chooser.Device); err != nil {
			return nil, fault.New(fault.Precondition, "use kvm: %w", err)
		}
	}
	m := l.machine
	m.Monitor, m.Channel, m.Tap = spawn.FirstFile, spawn.FirstFile+1, spawn.FirstFile+2
	given := files
	if l.ram != nil {
		m.RAM = &machine.RAM{File: spawn.FirstFile + 3, Shared: l.shared}
		given = append(given, l.ram)
	}
	if l.state != nil {
		given = append(given, l.state)
	}
	return spawn.Start(spawn.Spec{
		Path: d.cfg.QEMUBinary, Args: m.Args(), UID: l.uid, Groups: groups, Files: given, Background: l.background,
	})
}
