package seed

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// Label is the volume label of the disk that holds a seed.
const Label = "cidata"

// File names on that disk.
const (
	UserDataName      = "user-data"
	MetaDataName      = "meta-data"
	NetworkConfigName = "network-config"
)

// BootstrapPath is where agent-runner finds its token.
const BootstrapPath = "/etc/agentlab/bootstrap.json"

// header is what cloud-init wants to see in front of user-data.
const header = "#cloud-config\n"

// Input is everything a seed is made of.
type Input struct {
	Hostname      string // a single DNS label
	SandboxID     string // also cloud-init's instance id
	VMID          uint32
	User          string // login of people and agent
	AuthorizedKey string // operator's public key, authorized_keys form; "" for none
	MAC           string
	AddressCIDR   netip.Prefix // the VM's own address with the subnet's length
	Gateway       netip.Addr
	DNS           []netip.Addr // none leaves names unresolved
	Controller    string       // "http://10.77.0.1:8844"
	Token         secret.Value // one-time; "" leaves the bootstrap file out
}

// Documents are the three files of a seed. UserData holds the token.
type Documents struct {
	UserData      []byte
	MetaData      []byte
	NetworkConfig []byte
}

var hostnamePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Render writes the documents. fault.Invalid names the field that is unusable.
func Render(in Input) (Documents, error) {
	in.AuthorizedKey = strings.TrimSpace(in.AuthorizedKey)
	if err := in.check(); err != nil {
		return Documents{}, err
	}
	user, err := in.userData()
	if err != nil {
		return Documents{}, err
	}
	userData, err := encode(user)
	if err != nil {
		return Documents{}, err
	}
	meta, err := encode(MetaData{InstanceID: in.SandboxID, Hostname: in.Hostname})
	if err != nil {
		return Documents{}, err
	}
	network, err := encode(in.network())
	if err != nil {
		return Documents{}, err
	}
	return Documents{UserData: append([]byte(header), userData...), MetaData: meta, NetworkConfig: network}, nil
}

func (in Input) check() error {
	switch {
	case !hostnamePattern.MatchString(in.Hostname):
		return fault.New(fault.Invalid, "hostname %q is not a DNS label", in.Hostname)
	case in.SandboxID == "":
		return fault.New(fault.Invalid, "seed needs a sandbox id")
	case in.User == "":
		return fault.New(fault.Invalid, "seed needs a user")
	case strings.ContainsAny(in.AuthorizedKey, "\r\n\x00"):
		return fault.New(fault.Invalid, "the operator's key is more than one line")
	case !macPattern.MatchString(in.MAC):
		return fault.New(fault.Invalid, "%q is not a MAC address", in.MAC)
	case !in.AddressCIDR.IsValid() || !in.Gateway.IsValid():
		return fault.New(fault.Invalid, "seed needs an address and a gateway")
	}
	return nil
}

func (in Input) userData() (UserData, error) {
	keep := false
	u := UserData{
		Hostname: in.Hostname, ManageHosts: true, PreserveHostname: &keep,
		PasswordLogin: &keep, KeyTypes: []string{"ed25519"},
		Users: []User{{
			Name: in.User, Shell: "/bin/bash", LockPassword: true,
			Sudo: "ALL=(ALL) NOPASSWD:ALL",
		}},
	}
	if in.AuthorizedKey != "" {
		u.Users[0].AuthorizedKeys = []string{in.AuthorizedKey}
	}
	if in.Token.Empty() {
		return u, nil
	}
	bootstrap, err := encode(guestapi.Bootstrap{
		Token: in.Token.Reveal(), Controller: in.Controller, VMID: in.VMID, Sandbox: in.SandboxID,
	})
	if err != nil {
		return u, err
	}
	u.WriteFiles = []File{{Path: BootstrapPath, Owner: "root:root", Permissions: "0600", Content: string(bootstrap)}}
	return u, nil
}

func (in Input) network() NetworkConfig {
	no := false
	link := Ethernet{
		Match: Match{MAC: strings.ToLower(in.MAC)}, DHCP4: &no, DHCP6: &no, AcceptRA: &no,
		Addresses: []string{in.AddressCIDR.String()},
		Routes:    []Route{{To: "0.0.0.0/0", Via: in.Gateway.String()}},
	}
	if in.Gateway.Is6() {
		link.Routes[0].To = "::/0"
	}
	if len(in.DNS) > 0 {
		link.Nameservers = &Nameservers{}
		for _, a := range in.DNS {
			link.Nameservers.Addresses = append(link.Nameservers.Addresses, a.String())
		}
	}
	return NetworkConfig{Version: 2, Ethernets: map[string]Ethernet{"agentlab0": link}}
}

func encode(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode seed: %w", err)
	}
	return append(b, '\n'), nil
}
