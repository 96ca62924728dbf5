package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ErrGone says that the program has certainly ended.
var ErrGone = errors.New("program has ended")

// root is where the kernel tells of its programs.
var root = "/proc"

// Identity tells one program from all others since the kernel started. Nothing
// of it can be changed by the program itself.
type Identity struct {
	PID        int
	StartTicks uint64 // field 22 of /proc/PID/stat
	UID        uint32
}

// Stat is what /proc/PID/stat tells.
type Stat struct {
	StartTicks uint64
	CPUTicks   uint64 // user + system, hundredths of a second
	RSSBytes   uint64
}

// TicksPerSecond is the unit of Stat's ticks. Linux fixes it for user space.
const TicksPerSecond = 100

// BootID names this run of the kernel.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// ReadStat gives ErrGone when there is no such pid.
func ReadStat(pid int) (Stat, error) {
	b, err := os.ReadFile(file(pid, "stat"))
	if gone(err) {
		return Stat{}, ErrGone
	}
	if err != nil {
		return Stat{}, err
	}
	return parseStat(b)
}

// parseStat starts behind the last ')': the program's name may hold anything.
func parseStat(b []byte) (Stat, error) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return Stat{}, errors.New("stat has no program name")
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 22 {
		return Stat{}, fmt.Errorf("stat has %d fields", len(f))
	}
	var nums [4]uint64
	for i, at := range []int{11, 12, 19, 21} { // utime, stime, starttime, rss
		n, err := strconv.ParseUint(f[at], 10, 64)
		if err != nil {
			return Stat{}, fmt.Errorf("parse stat field %d: %w", at+3, err)
		}
		nums[i] = n
	}
	return Stat{
		CPUTicks: nums[0] + nums[1], StartTicks: nums[2],
		RSSBytes: nums[3] * uint64(os.Getpagesize()),
	}, nil
}

// Check reports whether the program still runs, with any of its threads: nil,
// ErrGone, or an error that leaves it unknown. A zombie child of ours is laid to
// rest on the way.
func Check(id Identity) error {
	h, err := Open(id)
	if err != nil {
		return err
	}
	h.Close()
	return nil
}

// Find gives the programs that run as the user. An entry that cannot be read may
// be one of them, so it fails the search, unless it has gone meanwhile.
func Find(uid uint32) ([]Identity, error) {
	items, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	var out []Identity
	for _, item := range items {
		pid, err := strconv.Atoi(item.Name())
		if err != nil {
			continue
		}
		id, err := look(pid, uid)
		if errors.Is(err, ErrGone) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at pid %d: %w", pid, err)
		}
		out = append(out, id)
	}
	return out, nil
}

// look is ErrGone for a pid that does not run as the user.
func look(pid int, uid uint32) (Identity, error) {
	// Most are others', and known by one read.
	is, err := runsAs(pid, uid)
	if err == nil && !is {
		err = ErrGone
	}
	if err != nil {
		return Identity{}, err
	}
	h, err := hold(pid)
	if err != nil {
		return Identity{}, err
	}
	defer h.Close()
	return h.identify(uid)
}

// Args gives the arguments as the program shows them: it may write over them.
// A program whose first thread has ended shows none.
func Args(pid int) ([]string, error) {
	b, err := os.ReadFile(file(pid, "cmdline"))
	if gone(err) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(string(b), "\x00"), nil
}

// runsAs is true when any of the four user ids is this one.
func runsAs(pid int, uid uint32) (bool, error) {
	b, err := os.ReadFile(file(pid, "status"))
	if gone(err) {
		return false, ErrGone
	}
	if err != nil {
		return false, err
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			return slices.Contains(strings.Fields(rest), strconv.FormatUint(uint64(uid), 10)), nil
		}
	}
	return false, fmt.Errorf("status of %d names no user", pid)
}

func file(pid int, name string) string { return filepath.Join(root, strconv.Itoa(pid), name) }

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// reap ends a zombie if it is a child of ours; somebody else's child is left to
// its parent.
func reap(pid int) {
	var status syscall.WaitStatus
	_, _ = syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
}
