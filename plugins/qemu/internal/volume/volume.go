package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
)

// State says how far a volume's folder is.
type State string

// A volume in StateCreating may lack its disk.
const (
	StateCreating State = "creating"
	StateReady    State = "ready"
)

// Volume is the content of volume.json.
type Volume struct {
	Format    int              `json:"format"`
	ID        string           `json:"id"`
	Owner     string           `json:"owner"`
	State     State            `json:"state"`
	Bytes     uint64           `json:"bytes"`
	Attached  *Attachment      `json:"attached,omitempty"`
	Snapshots record.Snapshots `json:"snapshots,omitempty"`
}

// Attachment says which VM has the volume. The VM may be gone.
type Attachment struct {
	VMID   uint32 `json:"vmid"`
	Owner  string `json:"owner"`  // of the VM
	Serial string `json:"serial"` // under which the guest sees it
}

// To reports whether the volume is the VM's.
func (v *Volume) To(vmid uint32, owner string) bool {
	return v.Attached != nil && v.Attached.VMID == vmid && v.Attached.Owner == owner
}

// idBytes keeps the name of QEMU's node below its limit of 31 characters.
const idBytes = 10

var validID = regexp.MustCompile(`^[0-9a-f]{20}$`)

// ID is the name of an owner's volume. It follows from the owner, so a call that
// comes again finds what it made.
func ID(owner string) string {
	h := sha256.Sum256([]byte("agentlab volume of " + owner))
	return hex.EncodeToString(h[:idBytes])
}
