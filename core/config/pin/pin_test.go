package pin_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/core/config/pin"
	"github.com/agentlab/agentlab/sdk/fault"
)

// old is the pin of a binary that is gone.
const (
	old = "00000000000000000000000000000000000000000000000000000000000000ff"
)

// newDir has two binaries, which are scripts, and the configuration.
func newDir(t *testing.T, text string) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "config.hcl")
	text = strings.ReplaceAll(text, "$D", dir)
	for name, content := range map[string]string{"agentlab-plugin-a": "#!/bin/sh\n# a\n", "agentlab-plugin-b": "#!/bin/sh\n# b\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.Chmod(file, 0o600)); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

func TestOnlyThePinsChange(t *testing.T) {
	tests := []struct{ name, before, after string }{
		{"empty block", "plugin \"network\" \"a\" {}\n", "plugin \"network\" \"a\" {\n  sha256 = \"A\"\n}\n"},
		{"block on a line", "plugin \"network\" \"x\" { path = \"$D/agentlab-plugin-a\" }\n", "plugin \"network\" \"x\" {\n  path   = \"$D/agentlab-plugin-a\"\n  sha256 = \"A\"\n}\n"},
		{
			"comments", "# top\nplugin \"network\" \"a\" { # the network\n  # what it is told\n  config {\n    x = 1 # one\n  }\n}\n# end",
			"# top\nplugin \"network\" \"a\" { # the network\n  sha256 = \"A\"\n  # what it is told\n  config {\n    x = 1 # one\n  }\n}\n# end",
		},
		{
			"another pin", "plugin \"network\" \"a\" {\n  sha256 = \"" + old + "\" // old\n}\n",
			"plugin \"network\" \"a\" {\n  sha256 = \"A\" // old\n}\n",
		},
		{
			"behind path", "plugin \"network\" \"x\" {\n  path = \"$D/agentlab-plugin-a\" # there\n\n  config {}\n}\n",
			"plugin \"network\" \"x\" {\n  path   = \"$D/agentlab-plugin-a\" # there\n  sha256 = \"A\"\n\n  config {}\n}\n",
		},
		{
			"another style", "plugin \"network\" \"a\"  {\n\tconfine   =   false\n}\nsecrets_bundle=\"x\"\n",
			"plugin \"network\" \"a\"  {\n\tsha256 = \"A\"\n\tconfine   =   false\n}\nsecrets_bundle=\"x\"\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, file := newDir(t, "plugin_dir = \"$D\"\n\n"+tt.before)
			l, err := pin.Look(file, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !l.Changed() || l.Check() == nil {
				t.Errorf("changed %v, check %v", l.Changed(), l.Check())
			}
			if err := l.Write(); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(file)
			want := "plugin_dir = \"" + dir + "\"\n\n" + strings.NewReplacer("$D", dir, "\"A\"", "\""+l.Pins[0].SHA256+"\"").Replace(tt.after)
			if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
				t.Errorf("%v\n%s", err, diff)
			}
			again, err := pin.Look(file, nil)
			if err != nil || again.Changed() || again.Check() != nil {
				t.Errorf("once more: %+v, %v", again, err)
			}
		})
	}
}

const both = `plugin_dir = "$D"

plugin "network" "a" {}

plugin "hypervisor" "b" {
  config {
    token = "hunter2-hunter2"
  }
}
`

func TestChosenPlugins(t *testing.T) {
	_, file := newDir(t, both)
	l, err := pin.Look(file, []string{"hypervisor", "b"})
	if err != nil || len(l.Pins) != 1 || l.Pins[0].Name != "b" || l.Pins[0].Line != 5 {
		t.Fatalf("%+v, %v", l, err)
	}
	if d := l.Diff(); !strings.Contains(d, "\n+  sha256 = \""+l.Pins[0].SHA256+"\"\n") || strings.Contains(d, "hunter2") {
		t.Errorf("diff %s", d)
	}
	if err := l.Write(); err != nil {
		t.Fatal(err)
	}
	all, err := pin.Look(file, nil)
	if err != nil || all.Pins[0].Fits() || !all.Pins[1].Fits() {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := pin.Look(file, []string{"c"}); !errors.Is(err, fault.NotFound) || fault.HintOf(err) != "there are: network a, hypervisor b" {
		t.Errorf("%v (%s)", err, fault.HintOf(err))
	}
}

func TestTheFileStaysItself(t *testing.T) {
	dir, file := newDir(t, both)
	if os.Geteuid() == 0 {
		if err := os.Chown(file, 0, 12); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link.hcl")
	if err := errors.Join(os.Chmod(file, 0o640), os.Symlink("config.hcl", link)); err != nil {
		t.Fatal(err)
	}
	l, err := pin.Look(link, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Write(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(file)
	st := info.Sys().(*syscall.Stat_t)
	if err != nil || info.Mode().Perm() != 0o640 || os.Geteuid() == 0 && st.Gid != 12 {
		t.Errorf("mode %v, group %d, %v", info.Mode(), st.Gid, err)
	}
	if at, err := os.Readlink(link); err != nil || at != "config.hcl" {
		t.Errorf("the link leads to %s, %v", at, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("%d files, %v", len(entries), err)
	}
	if err := l.Write(); !errors.Is(err, fault.Conflict) {
		t.Errorf("over another content: %v", err)
	}
}

func TestWhatIsNotPinned(t *testing.T) {
	tests := []struct {
		name   string
		change func(dir, file string) error
		class  fault.Class
		says   string
	}{
		{"missing", func(dir, _ string) error { return os.Remove(dir + "/agentlab-plugin-a") }, fault.NotFound, "config.hcl:3: plugin binary"},
		{"open", func(dir, _ string) error { return os.Chmod(dir+"/agentlab-plugin-a", 0o757) }, fault.Denied, "config.hcl:3: "},
		{"wrong file", func(_, file string) error { return os.WriteFile(file, []byte("plugin {"), 0o600) }, fault.Invalid, "config.hcl:1"},
		{"no file", func(_, file string) error { return os.Remove(file) }, fault.NotFound, "there is no configuration"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, file := newDir(t, both)
			if err := tt.change(dir, file); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(file)
			if _, err := pin.Look(file, nil); !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v", err)
			}
			if after, _ := os.ReadFile(file); string(after) != string(before) {
				t.Error("it was written")
			}
		})
	}
}
