package badinput_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/internal/testkit"
)

// badPlugin is a plugin block whose plugin cannot come up.
type badPlugin struct {
	name    string
	prepare func(b *bed, path string) // makes the binary; nil: a copy of a good one
	block   string                    // further lines; $S is the sum of the binary
	says    string                    // behind the place of the block; $P is the path
	hint    string                    // of agentlab config check --plugins
}

func copyPlugin(b *bed, path string) {
	content, err := os.ReadFile(b.Plugin)
	if err == nil {
		err = os.WriteFile(path, content, 0o755)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func script(text string) func(b *bed, path string) {
	return func(b *bed, path string) {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			b.t.Fatal(err)
		}
	}
}

// elsewhere is a good plugin for another machine.
func elsewhere(b *bed, path string) {
	copyPlugin(b, path)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{183, 0}, 18) // e_machine: AArch64
	if err := errors.Join(err, f.Close()); err != nil {
		b.t.Fatal(err)
	}
}

func badPlugins() []badPlugin {
	open := func(b *bed, path string) { copyPlugin(b, path); b.chmod(path, 0o757) }
	out := []badPlugin{
		{"missing", func(*bed, string) {}, "", "plugin binary $P does not exist", "install the plugin, or set path in its block"},
		{"no interpreter", script("#!/usr/bin/python9\n"), "", "plugin $P is a script for /usr/bin/python9, which does not exist", "install /usr/bin/python9"},
		{"no program", script("exec plugin\n"), "", "plugin binary $P is no program", "install it again"},
		{"writable by others", open, "", "$P may be written by others, who could change a plugin", "chmod go-w $P"},
		{"another content", nil, "  sha256 = \"" + strings.Repeat("0", 64) + "\"\n", "plugin binary $P has sha256", "agentlab plugin lock"},
		{"not executable", func(b *bed, path string) { copyPlugin(b, path); b.chmod(path, 0o644) }, "", "plugin binary $P is not an executable file", "chmod 755 $P"},
		{"for root alone", func(b *bed, path string) { copyPlugin(b, path); b.chmod(path, 0o700) }, "", "plugin binary $P has mode 0700, and the plugin's own user cannot run it", "chmod 755 $P"},
		{"newer protocol", script("#!/bin/sh\necho '1|2|unix|/none|grpc|'\nexec sleep 60\n"), "", "it speaks another version of the plugin protocol than this AgentLab, which speaks 1", "--version"},
		{"talks first", script("#!/bin/sh\necho Welcome\nexec sleep 60\n"), "", "Unrecognized remote plugin message: Welcome", "--version"},
		{"asks for too much", nil, "  allow = []\n", "the plugin asks for root, network, which its block does not allow", "add it to allow"},
	}
	if runtime.GOARCH != "arm64" {
		out = append(out, badPlugin{"another machine", elsewhere, "", "plugin binary $P is for another machine: for AARCH64", "linux/" + runtime.GOARCH})
	}
	return out
}

// TestPlugin: a plugin that cannot come up keeps neither the daemon nor other
// plugins from working, and status and plugin list say what it is, with the place
// of its block.
func TestPlugin(t *testing.T) {
	t.Parallel()
	kinds := []string{"network", "hypervisor", "secrets", "exposure"}
	for some := range slices.Chunk(badPlugins(), len(kinds)) {
		var names []string
		for _, p := range some {
			names = append(names, p.name)
		}
		t.Run(strings.Join(names, ", "), func(t *testing.T) {
			b := newBed(t)
			config, want := b.Config(""), map[string][2]string{}
			for i, p := range some {
				path := b.path("bad-" + kinds[i])
				if p.prepare == nil {
					p.prepare = copyPlugin
				}
				p.prepare(b, path)
				place := fmt.Sprintf("%s:%d: ", b.ConfigFile(), strings.Count(config, "\n")+1)
				config += fmt.Sprintf("plugin %q %q {\n  path = %q\n%s  config {\n    world = %q\n  }\n}\n", kinds[i], "bad", path, p.block, b.path("world"))
				fill := strings.NewReplacer("$P", path).Replace
				want[place] = [2]string{fill(p.says), fill(p.hint)}
			}
			b.WriteConfig(t, config)
			b.tells(want)
		})
	}
}

// tells wants the daemon's configuration told wrong at these places.
func (b *bed) tells(want map[string][2]string) {
	b.t.Helper()
	checked := b.Run("config", "check", "--plugins", b.ConfigFile())
	b.Start(b.t)
	status, list := b.Run("status"), b.Run("plugin", "list")
	if status.Code != 0 || list.Code != 0 {
		b.t.Errorf("status: exit %d, plugin list: exit %d\n%s%s", status.Code, list.Code, status.Stderr, list.Stderr)
	}
	for place, texts := range want {
		for _, out := range []string{status.Stdout, list.Stdout} {
			if !hasLine(out, place, texts[0]) {
				b.t.Errorf("no line with %s … %q in\n%s", place, texts[0], out)
			}
		}
		if !hasLine(checked.Stdout, place, texts[0]) || !strings.Contains(checked.Stdout, texts[1]) {
			b.t.Errorf("config check: exit %d, no line with %s … %q and no hint %q in\n%s", checked.Code, place, texts[0], texts[1], checked.Stdout)
		}
	}
}

// hasLine reports whether a line has both, the second behind the first.
func hasLine(text, place, says string) bool {
	for line := range strings.Lines(text) {
		_, rest, ok := strings.Cut(line, place)
		if ok && strings.Contains(rest, says) {
			return true
		}
	}
	return false
}

// TestPluginBlock: what is wrong with a block itself.
func TestPluginBlock(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	config := b.Config(b.Block("network", b.Plugin, "    wrld = \"/x\"\n    token = \"hunter2-hunter2\"\n")) +
		fmt.Sprintf("plugin \"secrets\" \"secrets-age\" {\n  path = %q\n  config {\n    allow_plaintext = [\"hunter2-hunter2\"]\n  }\n}\n", testkit.Bin(t, "agentlab-plugin-secrets-age")) +
		fmt.Sprintf("plugin \"hypervisor\" \"other\" {\n  path = %q\n}\n", testkit.Bin(t, "agentlab-plugin-netfilter"))
	b.WriteConfig(t, config)
	at := func(text string) string {
		before, _, _ := strings.Cut(config, text)
		return fmt.Sprintf("%s:%d: ", b.ConfigFile(), strings.Count(before, "\n")+1)
	}
	b.tells(map[string][2]string{
		at("wrld"):             {`unknown key "wrld"`, ""},
		at("allow_plaintext"):  {"Incorrect attribute value type", "bool required"},
		at(`"hypervisor" "ot`): {" is a network plugin, not a hypervisor plugin", ""},
	})
	for _, args := range [][]string{{"status"}, {"plugin", "list"}, {"plugin", "info", "network"}, {"plugin", "info", "secrets", "--json"}} {
		if r := b.Run(args...); strings.Contains(r.Stdout+r.Stderr, "hunter2") {
			t.Errorf("%q tells a value:\n%s%s", args, r.Stdout, r.Stderr)
		}
	}
	if log := b.Log(); strings.Contains(log, "hunter2") {
		t.Errorf("the log tells a value:\n%s", log)
	}

	twice := newBed(t)
	twice.WriteConfig(t, twice.Config(twice.Plugins()+twice.Block("secrets", twice.Plugin, "")))
	line := strings.Count(twice.Config(twice.Plugins()), "\n") + 2
	twice.notStarted(fmt.Sprintf("$C:%d: a second secrets plugin; the first is at line", line), "one process serves each kind")
}
