package conformance

import (
	"strconv"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Setting fits a suite to a host, by name.
type Setting struct {
	Name  string
	Kind  plugin.Kind
	About string
	set   func(p *Plan, value string) error
}

var settings = []Setting{
	{"template", plugin.Hypervisor, "a whole template (default: the first)", func(p *Plan, v string) error {
		p.Hypervisor.Template = v
		return nil
	}},
	{"memory_mb", plugin.Hypervisor, "memory of each VM in MiB (default: 256)", func(p *Plan, v string) error {
		n, err := strconv.ParseUint(v, 10, 32)
		p.Hypervisor.MemoryBytes = n << 20
		return err
	}},
	{"taps", plugin.Hypervisor, "true: make the taps that it does not (default: false)", func(p *Plan, v string) (err error) {
		p.Hypervisor.Taps, err = strconv.ParseBool(v)
		return err
	}},
	{"guest", plugin.Hypervisor, "true: programs run in the guest (default: false)", func(p *Plan, v string) (err error) {
		p.Hypervisor.Guest, err = strconv.ParseBool(v)
		return err
	}},
	{"bridge", plugin.Network, "the bridge to use (default: " + DefaultHost.Bridge + ")", func(p *Plan, v string) error {
		p.wish().Bridge = v
		return nil
	}},
	{"subnet", plugin.Network, "40 addresses at its end are used (default: " + DefaultHost.Subnet + ")", func(p *Plan, v string) error {
		p.wish().Subnet = v
		return nil
	}},
	{"address", plugin.Network, "the host's own in it (default: " + DefaultHost.Address + ")", func(p *Plan, v string) error {
		p.wish().Address = v
		return nil
	}},
	{"create_interface", plugin.Network, "true: have the plugin make taps (default: false)", func(p *Plan, v string) (err error) {
		p.Network.CreateInterface, err = strconv.ParseBool(v)
		return err
	}},
	{"bundle", plugin.Secrets, "a bundle that opens (default: the first that has a variable)", func(p *Plan, v string) error {
		p.Secrets.Bundle = v
		return nil
	}},
	{"env", plugin.Secrets, "a variable in it (default: the first)", func(p *Plan, v string) error {
		p.Secrets.Env = v
		return nil
	}},
	{"broken", plugin.Secrets, "a bundle that must not open (default: none)", func(p *Plan, v string) error {
		p.Secrets.Broken = v
		return nil
	}},
	{"target", plugin.Exposure, "an address to publish (default: none is)", func(p *Plan, v string) error {
		p.Exposure.Target = v
		return nil
	}},
	{"ports", plugin.Exposure, "two free host ports, FIRST,SECOND", func(p *Plan, v string) error {
		first, second, _ := strings.Cut(v, ",")
		for i, text := range []string{first, second} {
			n, err := strconv.ParseUint(text, 10, 16)
			if err != nil {
				return err
			}
			p.Exposure.Ports[i] = uint16(n)
		}
		return nil
	}},
}

// wish is the network's wish, which begins as the default.
func (p *Plan) wish() *network.Host {
	if p.Network.Host.Bridge == "" {
		p.Network.Host = DefaultHost
	}
	return &p.Network.Host
}

// Settings lists what Set takes.
func Settings() []Setting { return settings }

// Set takes NAME=VALUE.
func (p *Plan) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	var names []string
	for _, s := range settings {
		if names = append(names, s.Name); ok && s.Name == name {
			if err := s.set(p, value); err != nil {
				return fault.New(fault.Invalid, "%q is no value of %s, %s", value, name, s.About)
			}
			return nil
		}
	}
	return fault.New(fault.Invalid, "%q sets nothing", text).WithHint("write NAME=VALUE; names are %s", strings.Join(names, ", "))
}
