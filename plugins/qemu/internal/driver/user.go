package driver

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// delegations name the ids that accounts of this host may take on in containers
// of their own.
var delegations = []string{"/etc/subuid", "/etc/subgid"}

// unusedUser refuses a VMID whose user already runs something, such as a VM of
// another state folder on this host, or that some account may become: it could
// read the VM's disk and seed, and end its program.
func (d *Driver) unusedUser(vmid uint32) error {
	uid := d.uid(vmid)
	for _, file := range delegations {
		account, err := delegatedTo(file, uid)
		if err != nil {
			return fault.New(fault.Unavailable, "look who may become uid %d: %w", uid, err)
		}
		if account != "" {
			return fault.New(fault.Precondition, "id %d is delegated to %s by %s", uid, account, file).
				WithHint("set uid_base of the qemu plugin to a range that is not in that file")
		}
	}
	found, err := d.programs(uid)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return fault.New(fault.Exists, "vm %d belongs to somebody else", vmid).
			WithResource("vm %d", vmid).WithHolder("pid " + strconv.Itoa(found[0].PID)).
			WithHint("another instance uses the same uid_base: give each its own")
	}
	return nil
}

// delegatedTo gives the account whose line of the file holds id, "" for none.
func delegatedTo(file string, id uint32) (string, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) != 3 {
			continue
		}
		first, err1 := strconv.ParseUint(f[1], 10, 64)
		count, err2 := strconv.ParseUint(f[2], 10, 64)
		if err1 == nil && err2 == nil && uint64(id) >= first && uint64(id)-first < count {
			return f[0], nil
		}
	}
	return "", nil
}
