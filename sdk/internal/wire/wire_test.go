package wire_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/proto/pluginv1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
)

func TestEveryFieldCrosses(t *testing.T) {
	for _, class := range fault.Classes() {
		want := &fault.Error{
			Class: class, Message: "m " + string(class), Hint: "do this", Resource: "vm 1042",
			Holder: "backup", Command: "qm clone 9000", ExitCode: 2,
			Stderr: "first\nlast line\n", RetryAfter: 3 * time.Second,
		}
		got := wire.Error(wire.Status(want))
		if diff := cmp.Diff(error(want), got, cmpopts.IgnoreFields(fault.Error{}, "Err")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", class, diff)
		}
		if !errors.Is(got, class) {
			t.Errorf("errors.Is(%v, %s) = false", got, class)
		}
		if got.Error() != want.Error() {
			t.Errorf("text %q, want %q", got.Error(), want.Error())
		}
	}
}

func TestFactsComeFromTheWholeChain(t *testing.T) {
	inner := &fault.Error{Class: fault.Timeout, Message: "nft", Hint: "inner hint", Command: "nft -f -", ExitCode: 1, Stderr: "boom\n"}
	outer := fault.New(fault.Precondition, "attach: %w", inner).WithResource("sandbox x")
	err := errors.Join(fmt.Errorf("step 2: %w", outer), errors.New("clean-up failed"))
	got := wire.Error(wire.Status(err))
	want := &fault.Error{
		Class: fault.Precondition, Message: "step 2: attach: nft: boom\nclean-up failed", Hint: "inner hint",
		Resource: "sandbox x", Command: "nft -f -", ExitCode: 1, Stderr: "boom\n",
	}
	if diff := cmp.Diff(error(want), got, cmpopts.IgnoreFields(fault.Error{}, "Err")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	once := wire.Error(wire.Status(fmt.Errorf("step 2: %w", outer)))
	if n := strings.Count(once.Error(), "boom"); n != 1 {
		t.Errorf("stderr appears %d times in %q", n, once)
	}
}

func TestUnclassifiedErrors(t *testing.T) {
	tests := []struct {
		in   error
		want fault.Class
		is   error
	}{
		{errors.New("plain"), fault.Internal, nil},
		{fmt.Errorf("x: %w", context.Canceled), fault.Unavailable, context.Canceled},
		{context.DeadlineExceeded, fault.Timeout, context.DeadlineExceeded},
		{fmt.Errorf("x: %w", fault.Locked), fault.Locked, fault.Locked},
	}
	for _, tt := range tests {
		got := wire.Error(wire.Status(tt.in))
		if fault.ClassOf(got) != tt.want || got.Error() != tt.in.Error() {
			t.Errorf("%v came back as %s %q", tt.in, fault.ClassOf(got), got)
		}
		if tt.is != nil && !errors.Is(got, tt.is) {
			t.Errorf("%v is no longer %v", got, tt.is)
		}
	}
	if wire.Status(nil) != nil || wire.Error(nil) != nil {
		t.Error("nil became an error")
	}
}

func TestCodesWithoutDetails(t *testing.T) {
	tests := map[codes.Code]fault.Class{
		codes.Unimplemented: fault.Unsupported, codes.Unavailable: fault.Unavailable,
		codes.Unauthenticated: fault.Denied, codes.Unknown: fault.Internal,
		codes.FailedPrecondition: fault.Precondition, codes.OutOfRange: fault.Invalid,
		codes.DeadlineExceeded: fault.Timeout, codes.Canceled: fault.Unavailable,
		codes.Code(4711): fault.Internal,
	}
	for code, want := range tests {
		if got := fault.ClassOf(wire.Error(status.Error(code, "x"))); got != want {
			t.Errorf("%v is %s, want %s", code, got, want)
		}
	}
}

func TestBadTextStillArrives(t *testing.T) {
	in := &fault.Error{Class: fault.Internal, Message: "bad \xff", Stderr: strings.Repeat("é", 1<<20) + "end"}
	got := wire.Error(wire.Status(in))
	var e *fault.Error
	if !errors.As(got, &e) || e.Message != "bad \uFFFD" {
		t.Fatalf("got %v", got)
	}
	if len(e.Stderr) > 64<<10 || !strings.HasSuffix(e.Stderr, "éend") {
		t.Errorf("stderr has %d bytes and ends in %q", len(e.Stderr), e.Stderr[len(e.Stderr)-6:])
	}
}

func TestForeignDetailsAreSurvived(t *testing.T) {
	odd, err := anypb.New(&pluginv1.PluginError{
		Class: 99, Message: "", ExitCode: -1,
		RetryAfter: &durationpb.Duration{Seconds: 1, Nanos: -5},
	})
	if err != nil {
		t.Fatal(err)
	}
	st := &spb.Status{Code: int32(codes.NotFound), Message: "outer", Details: []*anypb.Any{
		nil, {TypeUrl: "nobody/knows.This", Value: []byte("x")}, {TypeUrl: odd.TypeUrl, Value: []byte("\xff\xff")}, odd,
	}}
	got := wire.Error(status.FromProto(st).Err())
	var e *fault.Error
	if !errors.As(got, &e) || e.Class != fault.NotFound || e.Message != "outer" || e.RetryAfter != 0 {
		t.Errorf("got %#v", got)
	}
}

func TestPorts(t *testing.T) {
	if _, err := wire.Ports([]uint32{22, 70000}); !errors.Is(err, fault.Invalid) {
		t.Errorf("70000 passed: %v", err)
	}
	got, err := wire.Ports(wire.Widen([]uint16{1, 65535}))
	if diff := cmp.Diff([]uint16{1, 65535}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
}
