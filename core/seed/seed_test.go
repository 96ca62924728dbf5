package seed_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

var update = flag.Bool("update", false, "write the golden files anew")

func input() seed.Input {
	return seed.Input{
		Hostname: "brave-otter", SandboxID: "sbx_abc", VMID: 1042, User: "agent",
		AuthorizedKey: "ssh-ed25519 AAAA operator\n", MAC: "52:54:00:AB:cd:01",
		AddressCIDR: netip.MustParsePrefix("10.77.0.42/16"), Gateway: netip.MustParseAddr("10.77.0.1"),
		DNS:        []netip.Addr{netip.MustParseAddr("9.9.9.9")},
		Controller: "http://10.77.0.1:8844", Token: secret.New("tok-123"),
	}
}

func TestGolden(t *testing.T) {
	d, err := seed.Render(input())
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{"user-data": d.UserData, "meta-data": d.MetaData, "network-config": d.NetworkConfig} {
		path := "testdata/" + name + ".golden"
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestParseReadsRender(t *testing.T) {
	d, err := seed.Render(input())
	if err != nil {
		t.Fatal(err)
	}
	s, err := seed.Parse(d)
	if err != nil || len(s.Warnings) != 0 {
		t.Fatalf("error %v, warnings %v", err, s.Warnings)
	}
	if s.Meta.InstanceID != "sbx_abc" || s.User.Hostname != "brave-otter" || s.User.Users[0].AuthorizedKeys[0] != "ssh-ed25519 AAAA operator" {
		t.Errorf("parsed %+v", s)
	}
	link := s.Network.Ethernets["agentlab0"]
	if link.Match.MAC != "52:54:00:ab:cd:01" || link.Addresses[0] != "10.77.0.42/16" || link.Routes[0].Via != "10.77.0.1" {
		t.Errorf("parsed %+v", link)
	}
	var boot guestapi.Bootstrap
	if err := json.Unmarshal([]byte(s.User.WriteFiles[0].Content), &boot); err != nil {
		t.Fatal(err)
	}
	if want := (guestapi.Bootstrap{Token: "tok-123", Controller: "http://10.77.0.1:8844", VMID: 1042, Sandbox: "sbx_abc"}); boot != want {
		t.Errorf("bootstrap %+v", boot)
	}
}

func TestRenderRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*seed.Input){
		"hostname": func(i *seed.Input) { i.Hostname = "a b" },
		"id":       func(i *seed.Input) { i.SandboxID = "" },
		"user":     func(i *seed.Input) { i.User = "" },
		"key":      func(i *seed.Input) { i.AuthorizedKey = "a\nb" },
		"mac":      func(i *seed.Input) { i.MAC = "52:54" },
		"address":  func(i *seed.Input) { i.AddressCIDR = netip.Prefix{} },
	} {
		in := input()
		spoil(&in)
		if _, err := seed.Render(in); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: error %v, want invalid", name, err)
		}
	}
}

func TestParseWarnsAndRefuses(t *testing.T) {
	good, err := seed.Render(input())
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, with string) seed.Documents {
		d := good
		for _, b := range []*[]byte{&d.UserData, &d.MetaData, &d.NetworkConfig} {
			*b = bytes.ReplaceAll(*b, []byte(old), []byte(with))
		}
		return d
	}
	s, err := seed.Parse(replace(`"ssh_pwauth"`, `"runcmd": ["x"], "ssh_pwauth"`))
	if err != nil || cmp.Diff(s.Warnings, []string{"user-data: runcmd is not understood"}) != "" {
		t.Errorf("warnings %v, error %v", s.Warnings, err)
	}
	for name, d := range map[string]seed.Documents{
		"no header":     replace("#cloud-config\n", ""),
		"yaml":          replace("{", ""),
		"no id":         replace("sbx_abc", ""),
		"relative path": replace("/etc/agentlab/bootstrap.json", "etc/x"),
		"path upwards":  replace("/etc/agentlab/bootstrap.json", "/etc/../x"),
		"permissions":   replace("0600", "99"),
		"address":       replace("10.77.0.42/16", "10.77.0.42"),
		"mac":           replace("52:54:00:ab:cd:01", "\\n"),
		"gateway":       replace(`"via": "10.77.0.1"`, `"via": "10.77.0.1\n[Match]"`),
		"huge":          {UserData: []byte("#cloud-config\n" + strings.Repeat(" ", 2<<20) + "{}")},
	} {
		if _, err := seed.Parse(d); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: error %v, want invalid", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	d, err := seed.Render(input())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d.UserData, d.MetaData, d.NetworkConfig)
	f.Fuzz(func(t *testing.T, u, m, n []byte) {
		s, err := seed.Parse(seed.Documents{UserData: u, MetaData: m, NetworkConfig: n})
		if err != nil {
			return
		}
		for _, w := range s.User.WriteFiles {
			if strings.Contains(w.Path, "..") && strings.Contains("/"+w.Path+"/", "/../") {
				t.Errorf("accepted path %q", w.Path)
			}
		}
	})
}
