package template

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/plugins/qemu/internal/machine"
	"github.com/agentlab/agentlab/sdk/fault"
)

const diskSize = 4 << 30

// header is the start of a qcow2 file of version 3.
func header(change func(h []byte)) []byte {
	h := make([]byte, 512)
	binary.BigEndian.PutUint32(h, 0x514649fb)
	binary.BigEndian.PutUint32(h[4:], 3)
	binary.BigEndian.PutUint64(h[24:], diskSize)
	if change != nil {
		change(h)
	}
	return h
}

func goodManifest() map[string]any {
	return map[string]any{
		"format": 1, "name": "debian-12", "vmid": 9000, "version": "0123456789ab", "arch": "x86_64",
		"disk": "root.qcow2", "disk_format": "qcow2", "disk_virtual_bytes": uint64(diskSize),
		"kernel": "vmlinuz", "initrd": "initrd.img", "cmdline": "root=/dev/vda", "ssh_user": "agent",
		"agents": []string{"claude"}, "runner_version": "1", "kernel_version": "6.1",
	}
}

func writeFolder(t *testing.T, dir string, manifest map[string]any, disk []byte) {
	t.Helper()
	raw, err := json.Marshal(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string][]byte{"manifest.json": raw, "root.qcow2": disk, "vmlinuz": nil, "initrd.img": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "debian-12-0123456789ab")
	writeFolder(t, dir, goodManifest(), header(nil))
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	got.Modified = time.Time{}
	want := Template{
		Dir: dir, VMID: 9000, Name: "debian-12", Version: "0123456789ab", Disk: dir + "/root.qcow2", DiskBytes: diskSize,
		DiskBus: machine.VirtioBlk, Kernel: dir + "/vmlinuz", Initrd: dir + "/initrd.img", Cmdline: "root=/dev/vda", SSHUser: "agent", Agents: []string{"claude"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// An image that boots by itself says on which bus it looks for its disk.
func TestLoadFirmwareBoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "image")
	m := goodManifest()
	for _, key := range []string{"kernel", "initrd", "cmdline"} {
		delete(m, key)
	}
	m["disk_bus"] = "virtio-scsi"
	writeFolder(t, dir, m, header(nil))
	got, err := Load(dir)
	if err != nil || got.Kernel != "" || got.DiskBus != machine.VirtioSCSI {
		t.Errorf("kernel %q, bus %q, err %v", got.Kernel, got.DiskBus, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	set := func(key string, value any) func(map[string]any) {
		return func(m map[string]any) { m[key] = value }
	}
	tests := map[string]struct {
		change func(map[string]any)
		disk   []byte
		want   string
	}{
		"format":            {set("format", 2), header(nil), "format 2"},
		"no name":           {set("name", ""), header(nil), "name"},
		"no vmid":           {set("vmid", 0), header(nil), "vmid"},
		"architecture":      {set("arch", "aarch64"), header(nil), "aarch64"},
		"raw disk":          {set("disk_format", "raw"), header(nil), "raw"},
		"disk bus":          {set("disk_bus", "ide"), header(nil), "ide"},
		"path upwards":      {set("disk", "../other/root.qcow2"), header(nil), "not the name of a file"},
		"absolute path":     {set("kernel", "/etc/shadow"), header(nil), "not the name of a file"},
		"missing file":      {set("initrd", "nope"), header(nil), "nope"},
		"link":              {set("initrd", "link"), header(nil), "not a plain file"},
		"not for all":       {set("initrd", "private"), header(nil), "not readable"},
		"wrong size":        {set("disk_virtual_bytes", 7), header(nil), "7"},
		"cmdline, no image": {func(m map[string]any) { m["kernel"], m["initrd"] = "", "" }, header(nil), "no kernel"},
		"not qcow2":         {nil, make([]byte, 512), "not qcow2"},
		"short disk":        {nil, []byte("QFI"), "too short"},
		"backing file":      {nil, header(func(h []byte) { h[15] = 200 }), "backing file"},
		"encrypted":         {nil, header(func(h []byte) { h[35] = 1 }), "encrypted"},
		"data elsewhere":    {nil, header(func(h []byte) { h[79] = 4 }), "another file"},
		"dirty":             {nil, header(func(h []byte) { h[79] = 1 }), "cleanly"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "image")
			m := goodManifest()
			if tt.change != nil {
				tt.change(m)
			}
			writeFolder(t, dir, m, tt.disk)
			err := errors.Join(
				os.Symlink("/etc/passwd", filepath.Join(dir, "link")),
				os.WriteFile(filepath.Join(dir, "private"), nil, 0o600),
			)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Load(dir); !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("err = %v, want invalid with %q", err, tt.want)
			}
		})
	}
}

func TestFind(t *testing.T) {
	parent := t.TempDir()
	put := func(folder, name string, vmid int, version string, age time.Duration) {
		m := goodManifest()
		m["name"], m["vmid"], m["version"] = name, vmid, version
		writeFolder(t, filepath.Join(parent, folder), m, header(nil))
		at := time.Now().Add(-age)
		if err := os.Chtimes(filepath.Join(parent, folder, "manifest.json"), at, at); err != nil {
			t.Fatal(err)
		}
	}
	put("debian-12-b", "debian-12", 9000, "old", time.Hour)
	put("debian-12-a", "debian-12", 9000, "new", 0)
	put("other", "other", 9001, "1", 0)
	put("broken", "broken", 9002, "1", 0)
	put(".debian-12-c", "debian-12", 9000, "unfinished", 0)
	for _, err := range []error{
		os.Remove(filepath.Join(parent, "broken", "vmlinuz")), os.Mkdir(filepath.Join(parent, "empty"), 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c := Catalog{Parent: parent}
	for ref, version := range map[string]string{"9000": "new", "debian-12": "new", "9001": "1"} {
		if got, err := c.Find(ref); err != nil || got.Version != version {
			t.Errorf("find %s: version %q, %v, want %q", ref, got.Version, err, version)
		}
	}
	if _, err := c.Find("9002"); !errors.Is(err, fault.Precondition) {
		t.Errorf("find a broken one: %v, want precondition", err)
	}
	_, err := c.Find("nope")
	if !errors.Is(err, fault.NotFound) || !strings.Contains(fault.HintOf(err), "9001 (other)") {
		t.Errorf("err = %v (%s)", err, fault.HintOf(err))
	}
	explicit := Catalog{Parent: parent, Folders: []string{filepath.Join(parent, "debian-12-b")}}
	if got, err := explicit.Find("9000"); err != nil || got.Version != "old" {
		t.Errorf("an explicit folder does not win: %q, %v", got.Version, err)
	}
	alias := filepath.Join(t.TempDir(), "alias")
	if err := os.Symlink(filepath.Join(parent, "debian-12-b"), alias); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{filepath.Join(parent, "debian-12-b"), alias} {
		entries, err := Catalog{Parent: parent, Folders: []string{folder}}.List()
		shadowed := map[string]bool{}
		for _, e := range entries {
			shadowed[filepath.Base(e.Dir)] = e.Shadowed
		}
		want := map[string]bool{filepath.Base(folder): false, "debian-12-a": true, "other": false, "broken": false}
		if diff := cmp.Diff(want, shadowed); diff != "" || err != nil || len(entries) != len(want) {
			t.Errorf("with %s named: %v, %d entries; shadowed (-want +got):\n%s", folder, err, len(entries), diff)
		}
	}
	if _, err := (Catalog{Parent: parent + "/none"}).Find("x"); !errors.Is(err, fault.NotFound) {
		t.Errorf("no folder at all: %v, want not found", err)
	}
}
