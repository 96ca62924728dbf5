package pluginhost

import (
	"slices"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Detail is all that is known of one plugin. Info and Schema are what its
// process said when it last came up; both are empty when none ever did.
type Detail struct {
	Status
	SHA256 string // pin of the binary, "" for none
	Info   plugin.Info
	Schema plugin.Schema
}

// Detail tells of the plugin of this kind or name. Like List it never waits for
// a plugin. fault.NotFound, or fault.Invalid for a name that several have.
func (h *Host) Detail(kindOrName string) (Detail, error) {
	if inst := h.find(plugin.Kind(kindOrName)); inst != nil {
		return inst.detail(), nil
	}
	named := slices.DeleteFunc(slices.Clone(h.instances), func(i *instance) bool { return i.block.Name != kindOrName })
	switch len(named) {
	case 0:
		return Detail{}, fault.New(fault.NotFound, "there is no plugin %q", kindOrName).WithHint("configured are: %s", labelsOf(h.instances))
	case 1:
		return named[0].detail(), nil
	}
	return Detail{}, fault.New(fault.Invalid, "%d plugins have the name %q", len(named), kindOrName).
		WithHint("name one by its kind: %s", labelsOf(named))
}

func labelsOf(list []*instance) string {
	names := make([]string, len(list))
	for i, inst := range list {
		names[i] = inst.label()
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func (i *instance) detail() Detail {
	i.mu.Lock()
	defer i.mu.Unlock()
	return Detail{Status: i.status, SHA256: i.block.SHA256, Info: i.info, Schema: i.schema}
}

// learn keeps what the plugin says of itself, also for when it is down.
func (i *instance) learn(info plugin.Info, schema plugin.Schema) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.info, i.schema = info, schema
}
