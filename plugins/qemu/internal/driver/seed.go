package driver

import (
	"bytes"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/seediso"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// readSeed reads the VM's seed disk. It belongs to the VM's user, as whom a guest
// that took QEMU over may have made anything of it.
func (d *Driver) readSeed(vmid uint32) (image []byte, err error) {
	const what = "read seed"
	f, err := os.OpenFile(d.store.Path(vmid, seedName), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, record.Classify(what, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return nil, record.Classify(what, err)
	}
	if !st.Mode().IsRegular() || st.Size() > seediso.MaxBytes {
		return nil, fault.New(fault.Precondition, "the seed of vm %d is none", vmid)
	}
	image, err = io.ReadAll(io.LimitReader(f, seediso.MaxBytes+1))
	if err == nil && len(image) > seediso.MaxBytes {
		err = errors.New("it grows")
	}
	return image, record.Classify(what, err)
}

// reseed makes the seed this one.
func (d *Driver) reseed(v *record.VM, s hypervisor.Seed) error {
	image, err := seediso.Render(seediso.Seed, seedFiles(s))
	if err != nil {
		return err
	}
	if now, err := d.readSeed(v.VMID); err == nil && bytes.Equal(now, image) {
		return nil
	}
	return record.WriteFile(d.store.Path(v.VMID, seedName), image, 0o400, int(v.UID))
}

func seedFiles(s hypervisor.Seed) []seediso.File {
	files := []seediso.File{{Name: metaData, Body: s.MetaData}, {Name: userData, Body: s.UserData}}
	if len(s.NetworkConfig) > 0 {
		files = append(files, seediso.File{Name: networkConfig, Body: s.NetworkConfig})
	}
	return files
}
