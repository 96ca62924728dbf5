package problem

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/sdk/fault"
)

func TestJoin(t *testing.T) {
	down := fault.New(fault.Unavailable, "plugin is down").WithHint("start it")
	bad := fmt.Errorf("profile x: %w", fault.New(fault.Invalid, "no template").WithHint("make one"))
	busy := fault.New(fault.Precondition, "in use").WithHint("make one")
	if err := Join(nil, nil); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	if err := Join(nil, bad, nil); !errors.Is(err, bad) {
		t.Errorf("of one: %v", err)
	}
	err := Join(down, bad, nil, busy)
	got := Of(err)
	if got.Class != "invalid" || got.Detail != "plugin is down; profile x: no template; in use" || got.Hint != "start it; make one" {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff([]string{"plugin is down", "profile x: no template", "in use"}, got.Errors); diff != "" {
		t.Error(diff)
	}
	if class := fault.ClassOf(Join(down, down)); class != fault.Unavailable {
		t.Errorf("of what may pass: %s", class)
	}
	if class := fault.ClassOf(Join(busy, bad)); class != fault.Precondition {
		t.Errorf("the first counts: %s", class)
	}
}
