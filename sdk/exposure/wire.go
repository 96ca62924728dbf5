package exposure

import (
	"github.com/agentlab/agentlab/sdk/internal/proto/exposurev1"
	"github.com/agentlab/agentlab/sdk/internal/wire"
)

func ruleToWire(r Rule) *exposurev1.PublishRequest {
	return &exposurev1.PublishRequest{
		Owner: r.Owner, TargetAddress: r.TargetAddr, TargetPort: uint32(r.TargetPort), HostPort: uint32(r.HostPort),
	}
}

func ruleFromWire(w *exposurev1.PublishRequest) (Rule, error) {
	ports, err := wire.Ports([]uint32{w.GetHostPort(), w.GetTargetPort()})
	if err != nil {
		return Rule{}, err
	}
	return Rule{Owner: w.GetOwner(), HostPort: ports[0], TargetAddr: w.GetTargetAddress(), TargetPort: ports[1]}, nil
}

func publishedToWire(r Rule) *exposurev1.Published {
	return &exposurev1.Published{Rule: ruleToWire(r), Url: r.URL}
}

func publishedFromWire(w *exposurev1.Published) (Rule, error) {
	out, err := ruleFromWire(w.GetRule())
	out.URL = w.GetUrl()
	return out, err
}
