package driver

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// delegations name the ids that accounts of this host may take on in containers
// of their own.
var delegations = []string{"/etc/subuid", "/etc/subgid"}

// unusedUser refuses a VMID whose user is another VM's, already runs something,
// such as a VM of another state folder on this host, or that some account may
// become: it could read the VM's disk and seed, and end its program.
func (d *Driver) unusedUser(vmid uint32) error {
	uid := d.uid(vmid)
	building, err := d.memory.Builder()
	if err != nil {
		return err
	}
	if building != nil && building.UID == uid && building.BootID == d.bootID {
		return taken(vmid, "a memory template").
			WithHint("one is being made as that user, since vmid_last was another: try again when it is made")
	}
	if err := d.unusedBy(vmid, uid); err != nil {
		return err
	}
	spares, err := d.store.SpareUsers()
	if err != nil {
		return err
	}
	if slices.Contains(spares, uid) {
		return taken(vmid, "a spare guest").WithHint("one waits as that user, since vmid_last was another")
	}
	return d.unusedByFormer(vmid)
}

// unusedByFormer refuses a VMID whose last VM was a spare and may run on: its folder was
// removed by hand, and with the VMID would go the note of what to look for.
func (d *Driver) unusedByFormer(vmid uint32) error {
	n, err := d.store.Former(vmid)
	if n == nil || err != nil || n.BootID != d.bootID {
		return err
	}
	found, err := d.programs(n.UID)
	if err != nil || len(found) == 0 {
		return err
	}
	return taken(vmid, n.Owner).WithHint("its folder is gone, and pid %d runs as its user: destroy it or end that", found[0].PID)
}

// unusedBy is unusedUser for a given user; vmid 0 stands for no VM at all.
func (d *Driver) unusedBy(vmid, uid uint32) error {
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
	other, err := d.neighbour(vmid, uid)
	if err != nil {
		return err
	}
	if other != 0 {
		return occupied(vmid, uid, "vm "+formatVMID(other)).
			WithHint("vm %d was made under another uid_base or vmid_last and has user %d: destroy it, or choose a base further away", other, uid)
	}
	found, err := d.programs(uid)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return occupied(vmid, uid, "pid "+strconv.Itoa(found[0].PID)).
			WithHint("another instance uses the same uid_base: give each its own")
	}
	return nil
}

func occupied(vmid, uid uint32, holder string) *fault.Error {
	if vmid == 0 {
		return fault.New(fault.Exists, "user %d, as which memory templates are made, is somebody else's", uid).WithHolder(holder)
	}
	return taken(vmid, holder)
}

// neighbour gives another VM of this instance that has the user, 0 for none:
// one that was made while uid_base or vmid_last was another.
func (d *Driver) neighbour(vmid, uid uint32) (uint32, error) {
	vmids, err := d.store.List()
	if err != nil {
		return 0, err
	}
	for _, other := range vmids {
		if other == vmid {
			continue
		}
		users, err := d.store.Users(other)
		if err != nil {
			return 0, err
		}
		if slices.Contains(users, uid) {
			return other, nil
		}
	}
	return 0, nil
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
