package launch

import (
	"testing"

	_ "github.com/agentlab/agentlab/sdk/hypervisor" // their contracts must be
	_ "github.com/agentlab/agentlab/sdk/network"    // linked in to be read
	_ "github.com/agentlab/agentlab/sdk/secrets"
)

func TestLimitsFollowTheContract(t *testing.T) {
	for method, want := range map[string]string{
		"/agentlab.hypervisor.v1.HypervisorService/GetVM":    "10s",
		"/agentlab.hypervisor.v1.HypervisorService/ListVMs":  "10s",
		"/agentlab.hypervisor.v1.HypervisorService/CreateVM": "5m0s",
		"/agentlab.hypervisor.v1.HypervisorService/SetPower": "2m0s",
		"/agentlab.network.v1.NetworkService/Attach":         "2m0s",
		"/agentlab.secrets.v1.SecretsService/Open":           "10s",
		"/nobody.Knows/This":                                 "2m0s",
	} {
		if got := contractOf(method).limit.String(); got != want {
			t.Errorf("%s: %s, want %s", method, got, want)
		}
	}
}
