package misbehave

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/sim/world"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	// deathWait is how long a process may take to die of SIGKILL.
	deathWait = 10 * time.Second
	// floodRate is the lines a second of a flood, in bursts of a hundredth.
	floodRate = 100_000
)

// What go-plugin puts in place of os.Stdout and os.Stderr goes another way.
const (
	stdout = 1
	stderr = 2
)

// grown is memory that the process took, kept for good.
var grown [][]byte

// Actor carries out what faults.json asks of a process. The daemon is the
// process that configured this one and still is its parent: a later parent is a
// stranger.
func Actor(daemon int) func(world.Fault) error {
	return func(f world.Fault) error {
		switch f.Do {
		case world.KillDaemon:
			return kill(os.Getppid(), daemon)
		case world.KillPlugin:
			return kill(os.Getpid(), os.Getpid())
		case world.StopItself:
			return syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		case world.Panic:
			go panic("no such luck")
			time.Sleep(deathWait)
		case world.Exit:
			os.Exit(0)
		case world.Unplug:
			unplug()
		case world.Spawn:
			return spawn(f.Message)
		case world.Grow:
			grow(f.Bytes)
		default:
			return talk(f)
		}
		return nil
	}
}

func kill(pid, want int) error {
	if pid != want || pid <= 1 {
		return fault.New(fault.Internal, "the plugin has no daemon to kill")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fault.New(fault.Internal, "kill process %d: %w", pid, err)
	}
	// No answer may leave before the target is gone; the plugin dies with its
	// daemon.
	time.Sleep(deathWait)
	return fault.New(fault.Internal, "process %d did not die", pid)
}

// unplug shuts all sockets: the listener and the connection to the host.
func unplug() {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > stderr {
			_ = unix.Shutdown(fd, unix.SHUT_RDWR) // an error for all else
		}
	}
}

// spawn leaves two programs behind that hold standard error: one in the
// process's group and one in a session of its own. Their command lines begin with
// name.
func spawn(name string) error {
	fd, err := unix.FcntlInt(stderr, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fault.New(fault.Internal, "hold standard error: %w", err)
	}
	held := os.NewFile(uintptr(fd), "stderr")
	defer func() { _ = held.Close() }()
	for _, apart := range []bool{false, true} {
		cmd := exec.Command("sleep", "1000")
		cmd.Args[0] = name
		cmd.Stderr = held
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: apart}
		if err := cmd.Start(); err != nil {
			return fault.New(fault.Internal, "leave a program behind: %w", err)
		}
	}
	return nil
}

func grow(size int) {
	more := make([]byte, size)
	for i := 0; i < len(more); i += os.Getpagesize() {
		more[i] = 1 // or it would not be there
	}
	grown = append(grown, more)
}

// talk prints what no host expects.
func talk(f world.Fault) error {
	switch f.Do {
	case world.Babble:
		noise := make([]byte, 1<<20)
		for i := range noise {
			noise[i] = byte(rand.Uint32())
		}
		put(stdout, noise)
		_, _ = os.Stdout.Write(noise) // through the connection
	case world.BadLog:
		for _, line := range []string{
			`{"@message":1}`, `{"@message":"x","@level":7}`, `{"@level":"info","@message":null}`, `{`, `null`, `[1]`, "\xff\xfe\x00",
			`{"@level":"error","@message":"\u001b[2J\u202eforged","@timestamp":12,"nested":{"a":[1,null]}}`,
			`{"@level":"info","@message":"many","a":` + string(bytes.Repeat([]byte("["), 20_000)),
		} {
			put(stderr, []byte(line+"\n"))
		}
	case world.LongLine:
		put(stderr, append(bytes.Repeat([]byte("x"), f.Bytes), '\n'))
	case world.Flood:
		flood(time.Duration(f.For))
	default:
		return fault.New(fault.Internal, "faults.json asks for %q, which is not possible", f.Do)
	}
	return nil
}

func flood(how time.Duration) {
	const bursts = 100
	tick := time.NewTicker(time.Second / bursts)
	defer tick.Stop()
	n := 0
	for end := time.Now().Add(how); time.Now().Before(end); <-tick.C {
		var lines bytes.Buffer
		for range floodRate / bursts {
			n++
			fmt.Fprintf(&lines, "{\"@level\":\"warn\",\"@message\":\"line of a flood\",\"number\":%d}\n", n)
		}
		put(stderr, lines.Bytes())
	}
}

func put(fd int, b []byte) {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil {
			return
		}
		b = b[n:]
	}
}
