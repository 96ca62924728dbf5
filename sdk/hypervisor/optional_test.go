package hypervisor_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/internal/wiretest"
)

func (t *talking) CreateSnapshot(_ context.Context, ref hypervisor.Ref, name string, withMemory bool) (hypervisor.Snapshot, error) {
	return wiretest.Filled[hypervisor.Snapshot](choices), t.keep(ref, name, withMemory)
}

func (t *talking) RollbackSnapshot(_ context.Context, ref hypervisor.Ref, name string) (hypervisor.VM, error) {
	return wiretest.Filled[hypervisor.VM](choices), t.keep(ref, name)
}

func (t *talking) DeleteSnapshot(_ context.Context, ref hypervisor.Ref, name string) ([]hypervisor.Snapshot, error) {
	return wiretest.Filled[[]hypervisor.Snapshot](choices), t.keep(ref, name)
}

func (t *talking) ListSnapshots(_ context.Context, ref hypervisor.Ref) ([]hypervisor.Snapshot, error) {
	return wiretest.Filled[[]hypervisor.Snapshot](choices), t.keep(ref)
}

func (t *talking) CreateVolume(_ context.Context, req hypervisor.VolumeRequest) (hypervisor.Volume, error) {
	return wiretest.Filled[hypervisor.Volume](choices), t.keep(req)
}

func (t *talking) CloneVolume(_ context.Context, req hypervisor.CloneRequest) (hypervisor.Volume, error) {
	return wiretest.Filled[hypervisor.Volume](choices), t.keep(req)
}

func (t *talking) GetVolume(_ context.Context, ref hypervisor.VolumeRef) (hypervisor.Volume, error) {
	return wiretest.Filled[hypervisor.Volume](choices), t.keep(ref)
}

func (t *talking) AttachVolume(_ context.Context, vm hypervisor.Ref, volume hypervisor.VolumeRef, serial string) (hypervisor.Volume, error) {
	return wiretest.Filled[hypervisor.Volume](choices), t.keep(vm, volume, serial)
}

func (t *talking) DetachVolume(_ context.Context, vm hypervisor.Ref, volume hypervisor.VolumeRef) (hypervisor.Volume, error) {
	return wiretest.Filled[hypervisor.Volume](choices), t.keep(vm, volume)
}

func (t *talking) DeleteVolume(_ context.Context, ref hypervisor.VolumeRef) error { return t.keep(ref) }

func (t *talking) SnapshotVolume(
	_ context.Context, ref hypervisor.VolumeRef, name string, action hypervisor.SnapshotAction,
) (hypervisor.Volume, error) {
	return wiretest.Filled[hypervisor.Volume](choices), t.keep(ref, name, action)
}

// Exec gives stdin back on both streams and ends with the number of arguments.
func (t *talking) Exec(_ context.Context, ref hypervisor.Ref, cmd hypervisor.Command, s hypervisor.Streams) (int, error) {
	in, err := io.ReadAll(s.Stdin)
	if err == nil {
		_, err = s.Stdout.Write(in)
	}
	if err == nil {
		_, err = s.Stderr.Write(bytes.ToUpper(in))
	}
	return len(cmd.Argv), errors.Join(err, t.keep(ref, cmd))
}

func TestNothingIsLostOfSnapshotsAndVolumes(t *testing.T) {
	d := &talking{}
	c := client(t, d)
	ctx := t.Context()
	ref := wiretest.Filled[hypervisor.Ref](choices)
	snapshots := wiretest.Filled[[]hypervisor.Snapshot](choices)
	volume := wiretest.Filled[hypervisor.Volume](choices)
	volumeRef := wiretest.Filled[hypervisor.VolumeRef](choices)
	request := wiretest.Filled[hypervisor.VolumeRequest](choices)
	clone := wiretest.Filled[hypervisor.CloneRequest](choices)

	made, err := c.CreateSnapshot(ctx, ref, "before", true)
	same(t, "CreateSnapshot", made, err, wiretest.Filled[hypervisor.Snapshot](choices))
	vm, err := c.RollbackSnapshot(ctx, ref, "before")
	same(t, "RollbackSnapshot", vm, err, wiretest.Filled[hypervisor.VM](choices))
	left, err := c.DeleteSnapshot(ctx, ref, "before")
	same(t, "DeleteSnapshot", left, err, snapshots)
	left, err = c.ListSnapshots(ctx, ref)
	same(t, "ListSnapshots", left, err, snapshots)
	v, err := c.CreateVolume(ctx, request)
	same(t, "CreateVolume", v, err, volume)
	v, err = c.CloneVolume(ctx, clone)
	same(t, "CloneVolume", v, err, volume)
	v, err = c.GetVolume(ctx, volumeRef)
	same(t, "GetVolume", v, err, volume)
	v, err = c.AttachVolume(ctx, ref, volumeRef, "work")
	same(t, "AttachVolume", v, err, volume)
	v, err = c.DetachVolume(ctx, ref, volumeRef)
	same(t, "DetachVolume", v, err, volume)
	same(t, "DeleteVolume", nil, c.DeleteVolume(ctx, volumeRef), nil)
	want := []any{
		ref, "before", true, ref, "before", ref, "before", ref,
		request, clone, volumeRef, ref, volumeRef, "work", ref, volumeRef, volumeRef,
	}
	for _, action := range []hypervisor.SnapshotAction{hypervisor.SnapshotCreate, hypervisor.SnapshotRollback, hypervisor.SnapshotDelete} {
		v, err = c.SnapshotVolume(ctx, volumeRef, "before", action)
		same(t, "SnapshotVolume "+string(action), v, err, volume)
		want = append(want, volumeRef, "before", action)
	}
	same(t, "requests", d.calls, nil, want)
}

func TestNothingIsLostOfExec(t *testing.T) {
	d := &talking{}
	c := client(t, d)
	ref := wiretest.Filled[hypervisor.Ref](choices)
	cmd := hypervisor.Command{Argv: []string{"sh", "-c", "exit 3"}, Env: map[string]string{"A": "1", "B": ""}}
	long := strings.Repeat("abcdefg", 100_000) // many messages
	var stdout, stderr bytes.Buffer
	code, err := c.Exec(t.Context(), ref, cmd, hypervisor.Streams{Stdin: strings.NewReader(long), Stdout: &stdout, Stderr: &stderr})
	same(t, "Exec", code, err, 3)
	if stdout.String() != long || stderr.String() != strings.ToUpper(long) {
		t.Errorf("%d bytes on stdout and %d on stderr, want %d", stdout.Len(), stderr.Len(), len(long))
	}
	same(t, "requests", d.calls, nil, []any{ref, cmd})

	if code, err = c.Exec(t.Context(), ref, cmd, hypervisor.Streams{}); err != nil || code != 3 {
		t.Errorf("without streams: %d, %v", code, err)
	}
	if _, err = c.Exec(t.Context(), ref, hypervisor.Command{}, hypervisor.Streams{}); !errors.Is(err, fault.Invalid) {
		t.Errorf("without a program: %v, want invalid", err)
	}
}

// deaf ends without reading its stdin.
type deaf struct{ echo }

func (*deaf) Exec(context.Context, hypervisor.Ref, hypervisor.Command, hypervisor.Streams) (int, error) {
	return 7, nil
}

// waiting runs until its caller has gone.
type waiting struct {
	echo
	ended chan error
}

func (w *waiting) Exec(ctx context.Context, _ hypervisor.Ref, _ hypervisor.Command, s hypervisor.Streams) (int, error) {
	_, _ = io.WriteString(s.Stdout, "begun")
	<-ctx.Done()
	w.ended <- ctx.Err()
	return 0, ctx.Err()
}

func TestExecEndsWithProgramAndWithCaller(t *testing.T) {
	never, _ := io.Pipe() // nobody writes to it
	cmd := hypervisor.Command{Argv: []string{"true"}}
	if code, err := client(t, &deaf{}).Exec(t.Context(), hypervisor.Ref{}, cmd, hypervisor.Streams{Stdin: never}); err != nil || code != 7 {
		t.Errorf("a program that does not read: %d, %v", code, err)
	}
	w := &waiting{ended: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begun := writerFunc(func([]byte) { cancel() })
	if _, err := client(t, w).Exec(ctx, hypervisor.Ref{}, cmd, hypervisor.Streams{Stdin: never, Stdout: begun}); err == nil {
		t.Error("exec whose caller has gone succeeded")
	}
	select {
	case <-w.ended:
	case <-time.After(10 * time.Second):
		t.Error("the driver was not told that its caller has gone")
	}
}

type writerFunc func([]byte)

func (w writerFunc) Write(b []byte) (int, error) { w(b); return len(b), nil }

func TestOptionalCallsGiveTheDriversError(t *testing.T) {
	call := func(c *hypervisor.Client) (errs []error) {
		ctx := t.Context()
		keep := func(_ any, err error) { errs = append(errs, err) }
		keep(c.CreateSnapshot(ctx, hypervisor.Ref{}, "a", false))
		keep(c.RollbackSnapshot(ctx, hypervisor.Ref{}, "a"))
		keep(c.DeleteSnapshot(ctx, hypervisor.Ref{}, "a"))
		keep(c.ListSnapshots(ctx, hypervisor.Ref{}))
		keep(c.CreateVolume(ctx, hypervisor.VolumeRequest{}))
		keep(c.CloneVolume(ctx, hypervisor.CloneRequest{FromVolume: "a"}))
		keep(c.GetVolume(ctx, hypervisor.VolumeRef{}))
		keep(c.AttachVolume(ctx, hypervisor.Ref{}, hypervisor.VolumeRef{}, "a"))
		keep(c.DetachVolume(ctx, hypervisor.Ref{}, hypervisor.VolumeRef{}))
		keep(nil, c.DeleteVolume(ctx, hypervisor.VolumeRef{}))
		keep(c.SnapshotVolume(ctx, hypervisor.VolumeRef{}, "a", hypervisor.SnapshotCreate))
		keep(c.Exec(ctx, hypervisor.Ref{}, hypervisor.Command{Argv: []string{"true"}}, hypervisor.Streams{}))
		return errs
	}
	for i, err := range call(client(t, &talking{echo{err: fault.New(fault.Locked, "busy").WithHolder("backup")}})) {
		var e *fault.Error
		if !errors.As(err, &e) || !errors.Is(err, fault.Locked) || e.Holder != "backup" {
			t.Errorf("call %d: %v", i, err)
		}
	}
	for i, err := range call(client(t, &echo{})) {
		if !errors.Is(err, fault.Unsupported) {
			t.Errorf("call %d of a driver without it: %v, want unsupported", i, err)
		}
	}
	c := client(t, &talking{})
	if _, err := c.SnapshotVolume(t.Context(), hypervisor.VolumeRef{}, "a", "sideways"); !errors.Is(err, fault.Invalid) {
		t.Errorf("unknown action: %v", err)
	}
	if _, err := c.CloneVolume(t.Context(), hypervisor.CloneRequest{FromSnapshot: "a"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("clone of a snapshot of nothing: %v", err)
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"ab": true, "before-1_x": true, strings.Repeat("a", 40): true,
		"": false, "a": false, "1a": false, "a b": false, "a/b": false, "current": false, strings.Repeat("a", 41): false, "ab\n": false,
	} {
		if err := hypervisor.CheckSnapshotName(name); (err == nil) != ok || err != nil && !errors.Is(err, fault.Invalid) {
			t.Errorf("snapshot %q: %v", name, err)
		}
	}
	for serial, ok := range map[string]bool{
		"a": true, "work-1": true, strings.Repeat("9", 20): true, "": false, "a,b": false, "a_b": false, strings.Repeat("9", 21): false,
	} {
		if err := hypervisor.CheckSerial(serial); (err == nil) != ok || err != nil && !errors.Is(err, fault.Invalid) {
			t.Errorf("serial %q: %v", serial, err)
		}
	}
}

func TestCapabilitiesFollowFromInterfaces(t *testing.T) {
	if caps := hypervisor.Service(&deaf{}).Capabilities; !cmp.Equal(caps, []string{hypervisor.CapGuestExec}) {
		t.Errorf("capabilities %v", caps)
	}
}
