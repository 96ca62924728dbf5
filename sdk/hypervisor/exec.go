package hypervisor

import (
	"context"
	"io"
)

// GuestExecutor is a Driver that runs programs in guests without their network
// (capability "guest_exec").
type GuestExecutor interface {
	// Exec runs a program as root and gives its exit code, 128 + N after signal
	// N. A program that could not be run, or whose end was not seen, is an error.
	// fault.Precondition unless the VM is on and carries the owner mark,
	// fault.Unavailable or fault.Timeout when the guest does not answer. It is
	// not idempotent.
	Exec(ctx context.Context, ref Ref, cmd Command, streams Streams) (code int, err error)
}

// Command is a program in a guest.
type Command struct {
	Argv []string
	Env  map[string]string // besides what the guest gives every program
}

// Streams are what a program reads and writes. Each may be nil. Stdin is read
// until its end or the program's, whichever comes first.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}
