package accel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// The mode of the device is told only where mending it would help.
func TestModeIsToldWhereKVMIsFast(t *testing.T) {
	device := openDevice(t)
	if err := os.Chmod(device, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, measured := range map[string]float64{"root only": 900e6, "0.4 million": 0.4e6} {
		c := &Chooser{Want: Auto, State: t.TempDir(), Device: device, Measure: speed(measured, nil), Log: hclog.NewNullLogger()}
		v, err := c.Verdict(t.Context(), old)
		if err != nil || !strings.Contains(v.Reason, want) || strings.Contains(v.Fix, "chmod") != (measured > slowest) || v.Fix == "" {
			t.Errorf("%s: %+v, %v", want, v, err)
		}
	}
}

func TestRemedyFitsTheCase(t *testing.T) {
	guest, intel, amd := []string{"fpu", "hypervisor"}, []string{"vmx"}, []string{"svm"}
	_, missing := os.Stat(t.TempDir() + "/kvm")
	for name, c := range map[string]struct {
		err   error
		flags []string
		want  string
		not   string
	}{
		"no module, Intel":      {missing, intel, "modprobe kvm_intel", "firmware"},
		"no module, AMD":        {missing, amd, "modprobe kvm_amd", "firmware"},
		"a VM without nesting":  {missing, guest, "nested virtualisation", "modprobe"},
		"off in the firmware":   {missing, nil, "firmware", "nested"},
		"root only":             {fmt.Errorf("/dev/kvm %w (mode 0600, group 0)", errRootOnly), intel, "chmod 0660 /dev/kvm", "firmware"},
		"refused":               {&fs.PathError{Op: "open", Path: "/dev/kvm", Err: unix.EPERM}, intel, "container", "chmod"},
		"held":                  {fmt.Errorf("create vm: %w", unix.EBUSY), intel, "VirtualBox", "modprobe"},
		"slow in a VM":          {nil, append(guest, "svm"), "nested virtualisation", "modprobe"},
		"slow without a reason": {nil, intel, "accel.json", "nested"},
		"anything else":         {errors.New("guest left with reason 17"), amd, "dmesg", "nested"},
		"anything else in a VM": {errors.New("guest left with reason 17"), append(guest, "vmx"), "nested", "dmesg"},
	} {
		got := remedy(c.err, "/dev/kvm", c.flags)
		if !strings.Contains(got, c.want) || strings.Contains(got, c.not) {
			t.Errorf("%s: %q, want %q and not %q", name, got, c.want, c.not)
		}
	}
}
