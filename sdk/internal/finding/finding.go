package finding

import (
	"github.com/agentlab/agentlab/sdk/internal/proto/pluginv1"
	"github.com/agentlab/agentlab/sdk/plugin"
)

var levels = map[plugin.Level]pluginv1.Finding_Level{
	plugin.LevelOK:      pluginv1.Finding_LEVEL_OK,
	plugin.LevelWarning: pluginv1.Finding_LEVEL_WARNING,
	plugin.LevelMissing: pluginv1.Finding_LEVEL_MISSING,
}

// ToWire turns findings into their wire form.
func ToWire(in []plugin.Finding) []*pluginv1.Finding {
	var out []*pluginv1.Finding
	for _, f := range in {
		out = append(out, &pluginv1.Finding{Id: f.ID, Level: levels[f.Level], Message: f.Message, Fix: f.Fix})
	}
	return out
}

// FromWire is the reverse. A level that is not known counts as missing: a check
// that cannot be read must not pass.
func FromWire(in []*pluginv1.Finding) []plugin.Finding {
	var out []plugin.Finding
	for _, f := range in {
		level := plugin.LevelMissing
		for l, w := range levels {
			if w == f.GetLevel() {
				level = l
			}
		}
		out = append(out, plugin.Finding{ID: f.GetId(), Level: level, Message: f.GetMessage(), Fix: f.GetFix()})
	}
	return out
}
