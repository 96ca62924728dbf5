package wire

import (
	"math"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Port narrows a port number from the wire; anything above 65535 is
// fault.Invalid.
func Port(n uint32) (uint16, error) {
	if n > math.MaxUint16 {
		return 0, fault.New(fault.Invalid, "port %d is above 65535", n)
	}
	return uint16(n), nil
}

// Ports narrows a list.
func Ports(in []uint32) ([]uint16, error) {
	var out []uint16
	for _, n := range in {
		p, err := Port(n)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// Widen turns ports into their wire form.
func Widen(in []uint16) []uint32 {
	var out []uint32
	for _, p := range in {
		out = append(out, uint32(p))
	}
	return out
}
