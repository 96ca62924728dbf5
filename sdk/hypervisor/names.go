package hypervisor

import (
	"regexp"

	"github.com/agentlab/agentlab/sdk/fault"
)

var (
	snapshotName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{1,39}$`)
	diskSerial   = regexp.MustCompile(`^[A-Za-z0-9-]{1,20}$`)
)

// CheckSnapshotName is fault.Invalid for what some hypervisor would not take.
func CheckSnapshotName(name string) error {
	if !snapshotName.MatchString(name) || name == "current" {
		return fault.New(fault.Invalid, "%q is no name of a snapshot", name).
			WithHint("write a letter, then letters, digits, - and _, 2 to 40 in all; \"current\" is reserved")
	}
	return nil
}

// CheckSerial is fault.Invalid for what some bus would not show whole.
func CheckSerial(serial string) error {
	if !diskSerial.MatchString(serial) {
		return fault.New(fault.Invalid, "%q is no serial of a disk", serial).
			WithHint("write 1 to 20 letters, digits and -")
	}
	return nil
}
