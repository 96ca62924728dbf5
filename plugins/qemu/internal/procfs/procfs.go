package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// ErrGone says that the program has certainly ended.
var ErrGone = errors.New("program has ended")

// Identity tells one program from all others that ever ran.
type Identity struct {
	PID        int
	StartTicks uint64 // field 22 of /proc/PID/stat
	UID        uint32 // real and effective user
	Mark       string // an argument of its own in its command line
}

// Stat is what /proc/PID/stat tells.
type Stat struct {
	State      byte // 'Z' has ended and waits for its parent
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
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
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
		State: f[0][0], CPUTicks: nums[0] + nums[1], StartTicks: nums[2],
		RSSBytes: nums[3] * uint64(os.Getpagesize()),
	}, nil
}

// Check reports whether the program still runs: nil, ErrGone, or an error that
// leaves it unknown. A zombie child of ours is laid to rest on the way.
func Check(id Identity) error {
	st, err := ReadStat(id.PID)
	if err != nil {
		return err
	}
	if st.StartTicks != id.StartTicks {
		return ErrGone
	}
	if st.State == 'Z' || st.State == 'X' {
		reap(id.PID)
		return ErrGone
	}
	return matches(id.PID, id.UID, id.Mark)
}

// Find scans for programs of the user that carry the mark.
func Find(uid uint32, mark string) ([]Identity, error) {
	all, err := OfUser(uid)
	if err != nil {
		return nil, err
	}
	var out []Identity
	for _, pid := range all {
		if matches(pid, uid, mark) != nil {
			continue
		}
		if st, err := ReadStat(pid); err == nil && st.State != 'Z' && st.State != 'X' {
			out = append(out, Identity{pid, st.StartTicks, uid, mark})
		}
	}
	return out, nil
}

// OfUser lists the pids that run as the user, zombies left out.
func OfUser(uid uint32) ([]int, error) {
	items, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, item := range items {
		pid, err := strconv.Atoi(item.Name())
		if err != nil {
			continue
		}
		if is, err := runsAs(pid, uid); err != nil || !is {
			continue
		}
		if st, err := ReadStat(pid); err == nil && st.State != 'Z' && st.State != 'X' {
			out = append(out, pid)
		}
	}
	return out, nil
}

// matches gives ErrGone for a program that is certainly not the one meant. Only
// root and the user itself can have that uid, so nobody else can forge a mark.
func matches(pid int, uid uint32, mark string) error {
	is, err := runsAs(pid, uid)
	if err != nil {
		return err
	}
	if !is {
		return ErrGone
	}
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if gone(err) {
		return ErrGone
	}
	if err != nil {
		return err
	}
	for arg := range strings.SplitSeq(string(args), "\x00") {
		if arg == mark {
			return nil
		}
	}
	return ErrGone
}

// runsAs compares the real and the effective user.
func runsAs(pid int, uid uint32) (bool, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if gone(err) {
		return false, ErrGone
	}
	if err != nil {
		return false, err
	}
	want := strconv.FormatUint(uint64(uid), 10)
	for line := range strings.SplitSeq(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			f := strings.Fields(rest)
			return len(f) >= 2 && f[0] == want && f[1] == want, nil
		}
	}
	return false, fmt.Errorf("status of %d names no user", pid)
}

func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// reap ends a zombie if it is a child of ours; somebody else's child is left to
// its parent.
func reap(pid int) {
	var status syscall.WaitStatus
	_, _ = syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
}
