package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/sdk/fault"
)

// The daemon is found by flags, then environment, then client.json, then the
// local socket.
func TestTarget(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file("agentlab/client.json", `{"endpoint":"http://file:1","token":"of-file","tailscale_admin":{}}`)
	other := file("other.json", `{"endpoint":"http://other:1"}`)
	empty := file("empty.json", `{}`)
	broken := file("broken.json", `{"endpoint":7}`)
	none := filepath.Join(dir, "none.json")
	type vars map[string]string
	for _, tc := range []struct {
		flags cli.Global
		env   vars
		want  string // socket or endpoint and token
	}{
		{cli.Global{Socket: "/f"}, vars{"AGENTLAB_ENDPOINT": "http://e", "AGENTLAB_SOCKET": "/e"}, "/f"},
		{cli.Global{Endpoint: "http://f", Token: "t"}, vars{"AGENTLAB_TOKEN": "e"}, "http://f t"},
		{cli.Global{Endpoint: "http://f"}, vars{"AGENTLAB_TOKEN": "e"}, "http://f e"},
		{cli.Global{}, vars{"AGENTLAB_ENDPOINT": "http://e", "AGENTLAB_TOKEN": "e", "AGENTLAB_SOCKET": "/e"}, "http://e e"},
		{cli.Global{}, vars{"AGENTLAB_SOCKET": "/e"}, "/e"},
		{cli.Global{}, nil, "http://file:1 of-file"},
		{cli.Global{Token: "t"}, nil, "http://file:1 t"},
		{cli.Global{Config: other}, nil, "http://other:1 "},
		{cli.Global{Config: empty}, nil, client.DefaultSocket},
		{cli.Global{Config: none}, nil, "invalid"},
		{cli.Global{Config: broken}, nil, "invalid"},
		{cli.Global{Socket: "/f", Endpoint: "http://f"}, nil, "invalid"},
	} {
		t.Setenv("XDG_CONFIG_HOME", dir)
		for _, k := range []string{"AGENTLAB_ENDPOINT", "AGENTLAB_TOKEN", "AGENTLAB_SOCKET"} {
			t.Setenv(k, tc.env[k])
		}
		o, err := target(tc.flags)
		got := o.Socket
		switch {
		case err != nil:
			got = string(fault.ClassOf(err))
		case o.Endpoint != "":
			got = o.Endpoint + " " + o.Token.Reveal()
		case got == client.DevSocket: // a dev daemon runs on this machine
			got = client.DefaultSocket
		}
		if got != tc.want {
			t.Errorf("%+v %v: %q, want %q", tc.flags, tc.env, got, tc.want)
		}
	}
}

func TestLocalSocket(t *testing.T) {
	dir := t.TempDir()
	installed, dev := filepath.Join(dir, "installed"), filepath.Join(dir, "dev")
	touch := func(path string) {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		make string
		want string
	}{{"", installed}, {dev, dev}, {installed, installed}} {
		if step.make != "" {
			touch(step.make)
		}
		if got := localSocket(installed, dev); got != step.want {
			t.Errorf("after %q: %s, want %s", step.make, got, step.want)
		}
	}
}

func TestIsURL(t *testing.T) {
	for repo, want := range map[string]bool{
		"https://git.example/x.git": true, "git@git.example:x.git": true, "host:x": true, "file:///x": true,
		".": false, "/srv/x": false, "../x": false, "./a:b": false, "dir/a:b": false, "plain": false,
	} {
		if got := isURL(repo); got != want {
			t.Errorf("isURL(%q) = %v", repo, got)
		}
	}
}

func TestSizesAndAges(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1 << 62: "4.0 EiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[int64]string{-5: "0s", 59: "59s", 60: "1m", 3599: "59m", 3600: "1h", 47 * 3600: "47h", 49 * 3600: "2d"} {
		if got := age(time.Duration(d) * time.Second); got != want {
			t.Errorf("age(%d s) = %q, want %q", d, got, want)
		}
	}
}
