package fault_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/agentlab/agentlab/sdk/fault"
)

func TestClassSurvivesWrapping(t *testing.T) {
	cause := errors.New("exit status 2")
	err := fmt.Errorf("clone template 9000: %w", fault.New(fault.Locked, "template is busy: %w", cause).WithHint("try again"))
	if !errors.Is(err, fault.Locked) {
		t.Error("class lost in wrapping")
	}
	if errors.Is(err, fault.Exists) {
		t.Error("matches a class that it is not")
	}
	if !errors.Is(err, cause) {
		t.Error("cause lost")
	}
	if got := fault.HintOf(err); got != "try again" {
		t.Errorf("hint = %q", got)
	}
	if got, want := err.Error(), "clone template 9000: template is busy: exit status 2"; got != want {
		t.Errorf("message = %q, want %q", got, want)
	}
}

func TestClassOf(t *testing.T) {
	tests := []struct {
		err  error
		want fault.Class
	}{
		{nil, ""},
		{errors.New("plain"), fault.Internal},
		{context.DeadlineExceeded, fault.Timeout},
		{fmt.Errorf("dial: %w", context.Canceled), fault.Unavailable},
		{fault.New(fault.Denied, "no"), fault.Denied},
		{fmt.Errorf("x: %w", fault.Unsupported), fault.Unsupported},
		{fault.New(fault.Invalid, "outer: %w", fault.New(fault.Timeout, "inner")), fault.Invalid},
	}
	for _, tt := range tests {
		if got := fault.ClassOf(tt.err); got != tt.want {
			t.Errorf("ClassOf(%v) = %q, want %q", tt.err, got, tt.want)
		}
	}
}

func TestHintComesFromTheCauseWhenTheOutsideHasNone(t *testing.T) {
	inner := fault.New(fault.Unavailable, "nft is missing").WithHint("apt-get install nftables")
	err := fault.New(fault.Precondition, "attach network: %w", inner)
	if got := fault.HintOf(err); got != "apt-get install nftables" {
		t.Errorf("hint = %q", got)
	}
}
