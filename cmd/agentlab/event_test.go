package main

import (
	"testing"

	"github.com/agentlab/agentlab/core/api"
)

func TestEventText(t *testing.T) {
	type fields = map[string]string
	for want, e := range map[string]api.Event{
		"":                     {},
		"cloned":               {Message: "cloned", Fields: fields{"vmid": "1"}},
		"create-vm, took 1.5s": {Fields: fields{"step": "create-vm", "took_ms": "1500", "kind": "create-sandbox"}},
		"create-vm, attempt 2": {Fields: fields{"step": "create-vm", "attempt": "2"}},
		"create-vm, no space":  {Message: "no space", Fields: fields{"step": "create-vm", "error": "no space\nat all", "hint": "h", "class": "c"}},
		"READY → STOPPED, reason the VM stopped": {Fields: fields{"from": "READY", "to": "STOPPED", "reason": "the VM stopped"}},
		"create-sandbox, state DONE":             {Fields: fields{"kind": "create-sandbox", "state": "DONE"}},
		"new → QUEUED":                           {Fields: fields{"to": "QUEUED", "reason": ""}},
		"boot_id b, runner 1":                    {Fields: fields{"runner": "1", "boot_id": "b"}},
	} {
		if got := eventText(e); got != want {
			t.Errorf("%+v: %q, want %q", e, got, want)
		}
	}
}
