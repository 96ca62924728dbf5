package guest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"go.yaml.in/yaml/v3"

	"github.com/agentlab/agentlab/plugins/sim/world"
)

// userData is what of a cloud-config matters here.
type userData struct {
	WriteFiles []struct {
		Path     string `yaml:"path"`
		Content  string `yaml:"content"`
		Encoding string `yaml:"encoding"`
	} `yaml:"write_files"`
}

// readSeed finds the bootstrap file in the machine's seed. Errors say nothing
// of its content, which holds a token.
func readSeed(seed []byte) (bootstrap, error) {
	if !bytes.HasPrefix(seed, []byte("#cloud-config")) {
		return bootstrap{}, errors.New("user-data is not a cloud-config")
	}
	var data userData
	if err := yaml.Unmarshal(seed, &data); err != nil {
		return bootstrap{}, errors.New("user-data is not YAML")
	}
	for _, f := range data.WriteFiles {
		if f.Path != bootstrapFile {
			continue
		}
		content := []byte(f.Content)
		if f.Encoding == "b64" || f.Encoding == "base64" {
			decoded, err := base64.StdEncoding.DecodeString(f.Content)
			if err != nil {
				return bootstrap{}, fmt.Errorf("%s is not base64", bootstrapFile)
			}
			content = decoded
		}
		var b bootstrap
		if err := json.Unmarshal(content, &b); err != nil || b.Controller == "" {
			return bootstrap{}, fmt.Errorf("%s cannot be read", bootstrapFile)
		}
		return b, nil
	}
	return bootstrap{}, fmt.Errorf("user-data holds no %s", bootstrapFile)
}

// address is the machine's own, from which it must speak.
func address(vm world.VM) (netip.Addr, error) {
	p, err := netip.ParsePrefix(vm.NIC.AddressCIDR)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("address %q cannot be read", vm.NIC.AddressCIDR)
	}
	return p.Addr(), nil
}
