package machine

import "encoding/json"

// Serials that disks of every VM have.
const (
	RootSerial = "root"
	SeedSerial = "seed"
)

// Volume is a disk that can be plugged in and out. The same names are used for
// one that is there from the start and one that comes later.
type Volume struct {
	ID     string // of QEMU's node and device, at most 31 characters
	Path   string // qcow2 without a backing file
	Serial string
}

// Node is what blockdev-add is told. Its header's word on other files is not
// followed.
func (v Volume) Node() map[string]any {
	return map[string]any{
		"driver": "qcow2", "node-name": v.ID, "backing": nil, "discard": "unmap", "detect-zeroes": "unmap",
		"file": map[string]any{"driver": "file", "filename": v.Path, "discard": "unmap"},
	}
}

// Device is what device_add is told.
func (v Volume) Device() map[string]any {
	return map[string]any{
		"driver": "scsi-hd", "id": v.ID, "bus": "scsi0.0", "drive": v.ID, "serial": v.Serial,
	}
}

func (v Volume) args() []string {
	device, err := json.Marshal(v.Device())
	if err != nil {
		panic(err) // strings only
	}
	return append(node(v.Node()).arg("-blockdev"), "-device", string(device))
}
