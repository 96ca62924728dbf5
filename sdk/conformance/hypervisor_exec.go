package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

const (
	// guestTimeout is for a guest to come up, emulated on a busy host.
	guestTimeout = 4 * time.Minute
	guestPoll    = time.Second
)

var execRules = []ruled[*machines]{
	changes("hypervisor.exec-refused", 2, "runs a program in a VM that is off, under another owner mark, and none at all",
		"PRECONDITION unless the VM is on and its stored owner equals expect_owner; UNAVAILABLE or TIMEOUT when the guest does not answer.",
		(*machines).execRefused),
	changes("hypervisor.exec", 2, "runs programs in a guest: output, input, environment, exit codes, and one whose caller goes away",
		"Last answer: exit_code, 128 + N after signal N.", (*machines).exec),
	changes("hypervisor.guest-disks", 2, "writes to root disk and volume in a guest, detaches it mounted and not, and rolls back",
		"An attached volume stays as it is and attached, or the call is PRECONDITION, as it is always from a snapshot with memory.",
		(*machines).guestDisks),
}

// userData is what a guest needs to stay up: its user, and a host to wait for,
// which is nowhere.
func userData(vmid uint32) string {
	bootstrap := fmt.Sprintf(`{\"token\":\"conformance\",\"controller\":\"http://127.0.0.1:9\",\"vmid\":%d,\"sandbox\":\"conformance\"}`, vmid)
	return fmt.Sprintf(`#cloud-config
{"users": [{"name": "agent", "shell": "/bin/bash", "lock_passwd": true}], "write_files": [
  {"path": "/etc/agentlab/bootstrap.json", "permissions": "0600", "content": "%s"}]}
`, bootstrap)
}

// executor is the driver, where it runs programs in guests.
func (m *machines) executor(ctx context.Context) (hypervisor.GuestExecutor, error) {
	e, ok := m.Driver.(hypervisor.GuestExecutor)
	if ok {
		_, err := e.Exec(ctx, hypervisor.Ref{VMID: m.host.VMIDLast}, hypervisor.Command{}, hypervisor.Streams{})
		ok = !errors.Is(err, fault.Unsupported)
	}
	if !ok {
		return nil, fmt.Errorf("%w: a hypervisor that runs programs in guests", ErrSkipped)
	}
	return e, nil
}

func (m *machines) execRefused(ctx context.Context) error {
	e, err := m.executor(ctx)
	if err != nil {
		return err
	}
	req, _, err := m.vm(ctx)
	if err != nil {
		return err
	}
	cmd := hypervisor.Command{Argv: []string{"true"}}
	_, off := e.Exec(ctx, req.Ref, cmd, hypervisor.Streams{})
	if err := m.turn(ctx, req.Ref, hypervisor.PowerOn, hypervisor.PowerOn); err != nil {
		return err
	}
	stranger := req.Ref
	stranger.Owner += "x"
	_, strangers := e.Exec(ctx, stranger, cmd, hypervisor.Streams{})
	_, nothing := e.Exec(ctx, req.Ref, hypervisor.Command{}, hypervisor.Streams{})
	return errors.Join(
		wantClass("exec in a vm that is off", off, fault.Precondition),
		wantClass("exec in a stranger's vm", strangers, fault.Precondition),
		wantClass("exec of no program", nothing, fault.Invalid),
	)
}

// guest makes a VM whose guest has come up.
func (m *machines) guest(ctx context.Context) (*guest, error) {
	if !m.opts.Guest {
		return nil, fmt.Errorf("%w: a template whose guest answers (setting guest)", ErrSkipped)
	}
	e, err := m.executor(ctx)
	if err != nil {
		return nil, err
	}
	ref, err := m.running(ctx)
	if err != nil {
		return nil, err
	}
	g := &guest{e, ref}
	return g, g.up(ctx)
}

// guest is one in which programs can be run.
type guest struct {
	hypervisor.GuestExecutor
	ref hypervisor.Ref
}

// up waits until it answers.
func (g *guest) up(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, guestTimeout)
	defer cancel()
	for {
		code, err := g.Exec(ctx, g.ref, hypervisor.Command{Argv: []string{"true"}}, hypervisor.Streams{})
		if err == nil && code == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the guest: exit code %d, %w", code, err)
		case <-time.After(guestPoll):
		}
	}
}

// run wants a script to end well, and gives what it printed.
func (g *guest) run(ctx context.Context, script string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := hypervisor.Command{Argv: []string{"sh", "-c", script}}
	code, err := g.Exec(ctx, g.ref, cmd, hypervisor.Streams{Stdout: &stdout, Stderr: &stderr})
	if err == nil && code != 0 {
		err = saw("%q ended with %d: %s", script, code, stderr.String()).want("0")
	}
	return strings.TrimSpace(stdout.String()), err
}

func (m *machines) exec(ctx context.Context) error {
	g, err := m.guest(ctx)
	if err != nil {
		return err
	}
	long := strings.Repeat("0123456789abcdef", 16<<10)
	for _, tt := range []struct {
		script, stdin, stdout, stderr string
		code                          int
	}{
		{script: "echo out; echo err >&2; exit 3", stdout: "out\n", stderr: "err\n", code: 3},
		{script: `printf %s "$GREETING"`, stdout: "good day"},
		{script: "cat", stdin: long, stdout: long},
		{script: "kill -9 $$", code: 128 + 9},
	} {
		var stdout, stderr bytes.Buffer
		code, err := g.Exec(ctx, g.ref, hypervisor.Command{Argv: []string{"sh", "-c", tt.script}, Env: map[string]string{"GREETING": "good day"}},
			hypervisor.Streams{Stdin: strings.NewReader(tt.stdin), Stdout: &stdout, Stderr: &stderr})
		if err != nil {
			return fmt.Errorf("exec %q: %w", tt.script, err)
		}
		if code != tt.code || stdout.String() != tt.stdout || stderr.String() != tt.stderr {
			return saw("%q ended with %d, %d bytes of output, %q", tt.script, code, stdout.Len(), stderr.String()).
				want("%d, %d bytes, %q", tt.code, len(tt.stdout), tt.stderr)
		}
	}
	if _, err := g.Exec(ctx, g.ref, hypervisor.Command{Argv: []string{"/there/is/no/such/program"}}, hypervisor.Streams{}); err == nil {
		return saw("a program that is not there has an exit code").want("an error")
	}
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := g.Exec(short, g.ref, hypervisor.Command{Argv: []string{"sleep", "34567"}}, hypervisor.Streams{}); err == nil {
		return saw("a program that does not end has ended").want("an error at the deadline")
	}
	left, err := g.run(ctx, "sleep 1; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 3456[7]' || true")
	if err != nil || left != "0" {
		return saw("%s programs run on whose caller is gone (%v)", left, err).want("none")
	}
	return nil
}

// findDisk puts the guest's name of the disk with the serial "work" into D, and
// waits for it. A program costs a tenth of a second in an emulated guest.
const (
	lookForDisk = `D=$(grep -lsx work /sys/block/*/serial || grep -ls work /sys/block/*/device/vpd_pg80); D=${D#/sys/block/}; D=${D%%/*}; `
	findDisk    = `for i in 1 2 3 4 5 6 7 8 9; do ` + lookForDisk + `[ "$D" ] && break; sleep 0.5; done; D=/dev/$D; `
)

func (m *machines) guestDisks(ctx context.Context) error {
	k, v, err := m.volume(ctx)
	if err != nil {
		return err
	}
	g, err := m.guest(ctx)
	if err != nil {
		return err
	}
	s, err := m.snapshotter(ctx)
	if err != nil {
		return err
	}
	if _, err := g.run(ctx, "echo one >/root/conformance; sync"); err != nil {
		return err
	}
	if _, err := s.CreateSnapshot(ctx, g.ref, "one", false); err != nil {
		return fmt.Errorf("create snapshot: %w", err)
	}
	if _, err := k.AttachVolume(ctx, g.ref, v.Ref, "work"); err != nil {
		return fmt.Errorf("attach volume: %w", err)
	}
	if _, err := g.run(ctx, findDisk+"mkfs.ext4 -q $D && mkdir -p /run/work && mount $D /run/work && echo kept >/run/work/file && sync"); err != nil {
		return err
	}
	_, err = k.DetachVolume(ctx, g.ref, v.Ref)
	if err := wantClass("detach of a mounted volume", err, fault.Precondition); err != nil {
		return err
	}
	if text, err := g.run(ctx, "cat /run/work/file; umount /run/work; echo two >/root/conformance; sync"); err != nil || text != "kept" {
		return saw("after a refused detach the volume holds %q (%v)", text, err).want("%q", "kept")
	}
	if err := m.detachTwice(ctx, k, g.ref, v); err != nil {
		return fmt.Errorf("detach of an unmounted volume: %w", err)
	}
	if name, err := g.run(ctx, lookForDisk+"echo $D"); err != nil || name != "" {
		return saw("after the detach the guest has the disk as %q (%v)", name, err).want("it gone")
	}
	if err := m.back(ctx, s, g.ref, "one", hypervisor.PowerOff); err != nil {
		return err
	}
	if _, err := k.AttachVolume(ctx, g.ref, v.Ref, "work"); err != nil {
		return fmt.Errorf("attach volume: %w", err)
	}
	if err := errors.Join(m.turn(ctx, g.ref, hypervisor.PowerOn, hypervisor.PowerOn), g.up(ctx)); err != nil {
		return err
	}
	text, err := g.run(ctx, findDisk+"mkdir -p /run/work && mount $D /run/work && cat /root/conformance /run/work/file && umount /run/work")
	if err != nil || text != "one\nkept" {
		return saw("after the rollback root disk and volume hold %q (%v)", text, err).want("%q", "one\nkept")
	}
	return nil
}
