package lab

import (
	"errors"
	"regexp"
	"strings"
)

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)

// CheckName reports why a sandbox cannot have the name. A name is also the
// guest's host name, and must not be taken for a VMID or an id.
func CheckName(name string) error {
	switch {
	case !namePattern.MatchString(name):
		return errors.New("a name has 1 to 40 lower-case letters, digits and dashes, none at its ends")
	case strings.Trim(name, "0123456789") == "":
		return errors.New("a name of digits only would be taken for a VMID")
	}
	return nil
}
