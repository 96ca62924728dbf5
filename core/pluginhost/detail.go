package pluginhost

import (
	"slices"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/launch"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// Detail is all that is known of one plugin. Info and Schema are what its
// process said when it last came up; both are empty when none ever did.
type Detail struct {
	Status
	SHA256 string // pin of the binary, "" for none
	Info   plugin.Info
	Schema plugin.Schema
	Grant  launch.Grant // of the process that said so
	// Crashes are the newest reports, newest first; Calls has a line per method.
	Crashes []Crash
	Calls   []Counters
}

// Detail tells of the plugin of this kind or name. Like List it never waits for
// a plugin. fault.NotFound, or fault.Invalid for a name that several have.
func (h *Host) Detail(kindOrName string) (Detail, error) {
	inst, err := h.named(kindOrName)
	if err != nil {
		return Detail{}, err
	}
	return inst.detail(), nil
}

func (h *Host) named(kindOrName string) (*instance, error) {
	if inst := h.find(plugin.Kind(kindOrName)); inst != nil {
		return inst, nil
	}
	all := h.all()
	named := slices.DeleteFunc(slices.Clone(all), func(i *instance) bool { return i.name != kindOrName })
	switch len(named) {
	case 0:
		return nil, fault.New(fault.NotFound, "there is no plugin %q", kindOrName).WithHint("configured are: %s", labelsOf(all))
	case 1:
		return named[0], nil
	}
	return nil, fault.New(fault.Invalid, "%d plugins have the name %q", len(named), kindOrName).
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
	return Detail{
		Status: i.status, SHA256: i.block.SHA256, Info: i.info, Schema: i.schema, Grant: i.grant, Crashes: slices.Clone(i.crashes), Calls: i.tally.list(),
	}
}

// learn keeps what the plugin says of itself, also for when it is down.
func (i *instance) learn(up *upProcess) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.info, i.schema, i.grant = up.info, up.schema, up.grant
}
