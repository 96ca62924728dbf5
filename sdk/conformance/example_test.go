package conformance_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/agentlab/agentlab/sdk/conformance"
	"github.com/agentlab/agentlab/sdk/fault"
)

// A plan can be carried out without a test, as agentlab plugin test does.
func ExamplePlan_Run() {
	plan := conformance.Plan{
		Binary: conformance.Binary{Path: "bin/agentlab-plugin-acme", Config: []byte(`{"pool":"fast"}`)},
		Level:  conformance.LevelProtocol,
	}
	_, err := plan.Run(context.Background(), func(r conformance.Result) { fmt.Println(r.ID, r.State) })
	fmt.Println(errors.Is(err, fault.NotFound)) // nobody built it here
	// Output: true
}
