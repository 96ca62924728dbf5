package machine

import (
	"slices"
	"testing"
)

// A volume that is there from the start has the names of one that comes later,
// comes after its controller, and follows no header to another file.
func TestVolumes(t *testing.T) {
	m := testMachine()
	m.Volumes = []Volume{{ID: "vol-1", Path: "/state/volumes/1/disk.qcow2", Serial: "work"}}
	args := m.Args()
	node := `{"backing":null,"detect-zeroes":"unmap","discard":"unmap","driver":"qcow2",` +
		`"file":{"discard":"unmap","driver":"file","filename":"/state/volumes/1/disk.qcow2"},"node-name":"vol-1"}`
	device := `{"bus":"scsi0.0","drive":"vol-1","driver":"scsi-hd","id":"vol-1","serial":"work"}`
	if !pair(args, "-blockdev", node) || !pair(args, "-device", device) {
		t.Errorf("arguments = %q", args)
	}
	if slices.Index(args, device) < slices.Index(args, "virtio-scsi-pci,id=scsi0,disable-legacy=on") {
		t.Error("the disk comes before its controller")
	}
}
