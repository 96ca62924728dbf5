package plugin

import (
	"fmt"
	"strings"

	"google.golang.org/grpc"

	"github.com/agentlab/agentlab/sdk/internal/proto/exposurev1"
	"github.com/agentlab/agentlab/sdk/internal/proto/hypervisorv1"
	"github.com/agentlab/agentlab/sdk/internal/proto/networkv1"
	"github.com/agentlab/agentlab/sdk/internal/proto/secretsv1"
)

// Kind says which contract a plugin fulfils.
type Kind string

// The kinds, as they are written in the first label of a plugin block.
const (
	Hypervisor Kind = "hypervisor"
	Network    Kind = "network"
	Secrets    Kind = "secrets"
	Exposure   Kind = "exposure"
)

var services = map[Kind]*grpc.ServiceDesc{
	Hypervisor: &hypervisorv1.HypervisorService_ServiceDesc,
	Network:    &networkv1.NetworkService_ServiceDesc,
	Secrets:    &secretsv1.SecretsService_ServiceDesc,
	Exposure:   &exposurev1.ExposureService_ServiceDesc,
}

// Kinds lists every kind.
func Kinds() []Kind { return []Kind{Hypervisor, Network, Secrets, Exposure} }

// NotOf says, behind the name of a plugin of these kinds, that it is none of kind k.
func (k Kind) NotOf(kinds []Kind) string {
	var names []string
	for _, one := range kinds {
		names = append(names, string(one))
	}
	if len(names) == 0 {
		return "is no " + string(k) + " plugin"
	}
	return fmt.Sprintf("is %s plugin, not %s plugin", article(strings.Join(names, " and ")), article(string(k)))
}

func article(word string) string {
	if strings.HasPrefix(word, "e") {
		return "an " + word
	}
	return "a " + word
}

// ServiceName is the full gRPC name of the kind's contract, version included;
// "" for a kind that does not exist.
func (k Kind) ServiceName() string {
	if desc := services[k]; desc != nil {
		return desc.ServiceName
	}
	return ""
}

func kindOfService(name string) Kind {
	for k, desc := range services {
		if desc.ServiceName == name {
			return k
		}
	}
	return ""
}

// Service is a driver ready to be served. Make it with the Service function of
// the kind's package: hypervisor.Service(driver).
type Service struct {
	Kind         Kind
	Capabilities []string // what the driver can do beyond the required part
	Server       any      // the generated server interface of the kind
}

// Register serves s on r, for tests that need no process.
func (s Service) Register(r grpc.ServiceRegistrar) { r.RegisterService(services[s.Kind], s.Server) }
