package guest

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/secret"
)

// The seed that the daemon really writes is understood.
func TestReadSeed(t *testing.T) {
	docs, err := seed.Render(seed.Input{
		Hostname: "sbx-a", SandboxID: "sbx_a", VMID: 1012, User: "agent", MAC: "02:00:00:00:00:12",
		AddressCIDR: netip.MustParsePrefix("127.77.0.12/16"), Gateway: netip.MustParseAddr("127.77.0.1"),
		Controller: "http://127.77.0.1:8844", Token: secret.New(token),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := bootstrap{Token: token, Controller: "http://127.77.0.1:8844", VMID: 1012, Sandbox: "sbx_a"}
	if got, err := readSeed(docs.UserData); err != nil || got != want {
		t.Errorf("readSeed = %+v, %v, want %+v", got, err, want)
	}
}

func TestReadSeedRefuses(t *testing.T) {
	for _, src := range []string{
		"", "not cloud-config " + token, "#cloud-config\n[" + token, "#cloud-config\n{}",
		"#cloud-config\nwrite_files: [{path: " + bootstrapFile + ", content: " + token + "}]",
		"#cloud-config\nwrite_files: [{path: " + bootstrapFile + ", content: '" + token + "!', encoding: b64}]",
	} {
		if _, err := readSeed([]byte(src)); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("readSeed(%q): %v", src, err)
		}
	}
}

func TestParseTask(t *testing.T) {
	got, err := parseTask("please sim:sleep=1s fix sim:print=a sim:sleep=500ms sim:log=2KB sim:artifact=x/y:1MB sim:exit=7")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 6 || got[1].at.String() != "1s" || got[2].at.String() != "1.5s" || got[3].n != 2048 || got[4].arg != "x/y" || got[4].n != 1<<20 || got[5].n != 7 {
		t.Errorf("parseTask = %+v", got)
	}
	for _, task := range []string{"sim:sleep=x", "sim:log=", "sim:exit=a", "sim:artifact=a", "sim:fly"} {
		if _, err := parseTask(task); err == nil {
			t.Errorf("parseTask(%q) succeeded", task)
		}
	}
}
