package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/agentlab/agentlab/sdk/conformance"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// inside is set in the copy of the test that runs in its own network namespace:
// the plugin's process must be born there, by whatever thread.
const inside = "AGENTLAB_TEST_NAMESPACE"

func TestConformanceOfBinary(t *testing.T) {
	if os.Getenv(inside) == "" {
		runInside(t)
		return
	}
	path := filepath.Join(t.TempDir(), "agentlab-plugin-netfilter")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	conformance.Test(t, conformance.Plan{
		Binary: conformance.Binary{Path: path}, Level: conformance.LevelSemantics, Destructive: true,
		Network: conformance.NetworkOptions{
			Host:            network.Host{Bridge: "vmbr1", Subnet: "10.77.0.0/16", Address: "10.77.0.1", GuestTCPPorts: []uint16{8844}},
			CreateInterface: true,
			Effects:         changes,
		},
	})
}

// changes gives a number that differs when rules or links do: a rule that is
// written anew has another handle, a link another index. Whether a link has a
// carrier does not count: the kernel makes up its mind about that later.
func changes(ctx context.Context) (int, error) {
	out, err := exec.CommandContext(ctx, "nft", "-s", "-a", "list", "ruleset").Output()
	if err != nil {
		return 0, err
	}
	listed, err := exec.CommandContext(ctx, "ip", "-json", "link", "show").Output()
	if err != nil {
		return 0, err
	}
	var links []struct {
		Index   int    `json:"ifindex"`
		Name    string `json:"ifname"`
		Address string `json:"address"`
		Master  string `json:"master"`
	}
	if err := json.Unmarshal(listed, &links); err != nil {
		return 0, err
	}
	return int(crc32.ChecksumIEEE(fmt.Appendf(out, "%+v", links))), nil
}

func runInside(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root and network namespaces")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestConformanceOfBinary$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("needs network namespaces: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestConformanceOfBinary/") {
		t.Errorf("in a namespace: %v\n%s", err, out)
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		config string
		path   string // of the one diagnostic; "" is none
	}{
		{`{}`, ""},
		{`{"wan_interface":"vmbr0","tailnet_interface":"","nft_binary":"/usr/sbin/nft"}`, ""},
		{`{"wan_interface":"eth*"}`, "wan_interface"},
		{`{"tailnet_interface":"a\" drop"}`, "tailnet_interface"},
		{`{"wan_interface":"tailscale0"}`, "wan_interface"},
		{`{"nft_binary":"bin/nft"}`, "nft_binary"},
		{`{"nft_binary":""}`, "nft_binary"},
		{`{"max_connections":100}`, ""},
		{`{"max_connections":0}`, "max_connections"},
	}
	for _, test := range tests {
		got := validate(t.Context(), json.RawMessage(test.config))
		switch {
		case test.path == "" && len(got) > 0:
			t.Errorf("%s: %+v", test.config, got)
		case test.path != "" && (len(got) != 1 || got[0].Path[0] != plugin.Attr(test.path)):
			t.Errorf("%s: %+v, want one about %s", test.config, got, test.path)
		}
	}
	if got := validate(t.Context(), json.RawMessage(`{"wan":"x"}`)); len(got) != 1 {
		t.Errorf("an unknown key: %+v", got)
	}
}
