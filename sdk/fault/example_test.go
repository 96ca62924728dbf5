package fault_test

import (
	"errors"
	"fmt"

	"github.com/agentlab/agentlab/sdk/fault"
)

// An error gets its class where the outside world answers; whoever passes it on
// wraps it with what was done.
func ExampleNew() {
	cause := errors.New("connection refused")
	err := error(fault.New(fault.Unavailable, "ask the storage: %w", cause).
		WithResource("vm %d", 1012).
		WithHint("systemctl status storaged"))
	err = fmt.Errorf("clone template 9000: %w", err)

	fmt.Println(err)
	fmt.Println(errors.Is(err, fault.Unavailable), errors.Is(err, cause))
	fmt.Println(fault.HintOf(err))
	// Output:
	// clone template 9000: ask the storage: connection refused
	// true true
	// systemctl status storaged
}
