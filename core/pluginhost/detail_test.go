package pluginhost_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/pluginhost"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestDetail(t *testing.T) {
	good := block(t, "secrets", "folder = \"/f\"\n")
	wrongKind := block(t, "hypervisor", "folder = \"/f\"\n") // the toy serves secrets only
	missing := block(t, "network", "")
	missing.Name = "nowhere"
	h := run(t, good, wrongKind, missing)
	_ = h.Ready(t.Context()) // two of them fail
	for ref, kind := range map[string]string{"secrets": "secrets", "hypervisor": "hypervisor", "nowhere": "network"} {
		d, err := h.Detail(ref)
		if err != nil || d.Kind != kind {
			t.Errorf("%s: %+v, %v", ref, d, err)
		}
	}
	d, err := h.Detail("secrets")
	if err != nil || d.State != pluginhost.Ready || d.Info.Description != "For tests." || len(d.Schema.Block.Attributes) != 6 {
		t.Errorf("detail %+v, %v", d, err)
	}
	if d, err := h.Detail("network"); err != nil || d.Info.Name != "" || len(d.Schema.Block.Attributes) != 0 || d.Reason == "" {
		t.Errorf("of one that never came up: %+v, %v", d, err)
	}
	_, err = h.Detail("toy")
	if !errors.Is(err, fault.Invalid) || !strings.Contains(fault.HintOf(err), "secrets toy, hypervisor toy") {
		t.Errorf("a name that two have: %v (%s)", err, fault.HintOf(err))
	}
	_, err = h.Detail("none")
	if !errors.Is(err, fault.NotFound) || !strings.Contains(fault.HintOf(err), "network nowhere") {
		t.Errorf("a name that none has: %v (%s)", err, fault.HintOf(err))
	}
}

// What a plugin said stays known while its configuration keeps it down.
func TestDetailOfAPluginThatIsDown(t *testing.T) {
	wrong := block(t, "secrets", "limit = 1000\n")
	h := run(t, wrong)
	_ = h.Ready(t.Context())
	d, err := h.Detail("secrets")
	if err != nil || d.State != pluginhost.Failed || len(d.Schema.Block.Attributes) != 6 || !strings.Contains(d.Reason, "folder") {
		t.Errorf("detail %+v, %v", d, err)
	}
}
