package machine

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// ConsoleBytes is the size of the ring that keeps the guest's console.
const ConsoleBytes = 64 << 10

// MarkFlag stands before the mark in QEMU's arguments.
const MarkFlag = "-uuid"

// Names of the chardevs the driver talks to.
const (
	ConsoleDevice = "console"
	ChannelPort   = "org.agentlab.runner.0"
)

// Bus is how the guest sees its root disk and its seed.
type Bus string

// The buses. On VirtioBlk both are plain disks; on VirtioSCSI the seed is a
// CD-ROM, which is what a guest of Proxmox with cloud-init finds.
const (
	VirtioBlk  Bus = "virtio-blk"
	VirtioSCSI Bus = "virtio-scsi"
)

// Accel is one way to execute the guest.
type Accel struct {
	Name string // "kvm" or "tcg"
	CPU  string // argument of -cpu
}

// Machine is all that QEMU is told.
type Machine struct {
	Name        string // shows in the arguments, no secret
	UUID        string // the mark by which the program is found again
	Accel       Accel
	TBMiB       uint32 // translation buffer of tcg
	Cores       uint32
	MemoryBytes uint64
	Kernel      string // "" boots by firmware
	Initrd      string
	Cmdline     string
	Bus         Bus
	Disk        string // overlay
	// Bases are what Disk lies on, the nearest last. They are named here so that
	// no disk's own header is ever followed.
	Bases   []string
	Seed    string
	MAC     string
	Monitor int // descriptors as QEMU sees them
	Channel int
	Tap     int
	Volumes []Volume
	RAM     *RAM // nil: QEMU's own
}

// Board is the number of the machine's layout, one more whenever its devices change:
// a guest's memory goes on only on the board that it has seen.
const Board = 1

// RAM is guest memory that comes from a file or goes into it.
type RAM struct {
	File int // descriptor as QEMU sees it
	// Shared: what the guest writes is written to the file. Otherwise it is read
	// only, and the guest's state comes by a migration.
	Shared bool
}

// Args gives the arguments after the program's name. The machine starts paused:
// nothing runs before it is recorded.
func (m Machine) Args() []string {
	args := []string{
		"-name", m.Name, MarkFlag, m.UUID, "-S",
		"-no-user-config", "-nodefaults", "-display", "none", "-vga", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", m.board(),
		"-cpu", m.Accel.CPU,
		"-smp", fmt.Sprintf("cpus=%d,sockets=1,cores=%d,threads=1", m.Cores, m.Cores),
		"-m", fmt.Sprintf("size=%dM", MemoryMiB(m.MemoryBytes)),
		"-rtc", "base=utc", "-msg", "timestamp=on",
	}
	args = append(args, "-accel", m.accel())
	args = append(args, m.memory()...)
	args = append(args, m.boot()...)
	args = append(args, m.disks()...)
	return append(args, m.devices()...)
}

// MemoryMiB rounds up: a guest never gets less than was asked for.
func MemoryMiB(bytes uint64) uint64 { return (bytes + 1<<20 - 1) >> 20 }

func (m Machine) board() string {
	board := "q35,usb=off,sata=off,smbus=off,i8042=off,smm=off,vmport=off,hpet=off,graphics=off,dump-guest-core=off"
	if m.RAM != nil {
		board += ",memory-backend=" + ramName
	}
	return board
}

// ramName is what QEMU calls its own memory: what was saved with the one can be
// loaded with the other.
const ramName = "pc.ram"

// memory opens the descriptor anew, since QEMU takes only a path, and always for
// writing. A sealed file lets itself be opened so, and be written by nobody.
func (m Machine) memory() []string {
	if m.RAM == nil {
		return nil
	}
	args := node{
		"qom-type": "memory-backend-file", "id": ramName, "x-use-canonical-path-for-ramblock-id": false, "mem-path": "/proc/self/fd/" + strconv.Itoa(m.RAM.File),
		"share": m.RAM.Shared, "size": MemoryMiB(m.MemoryBytes) << 20,
	}.arg("-object")
	if !m.RAM.Shared {
		args = append(args, "-incoming", "defer")
	}
	return args
}

func (m Machine) accel() string {
	if m.Accel.Name == "kvm" {
		return "kvm"
	}
	// The default buffer costs half a gigabyte of resident memory per VM.
	return fmt.Sprintf("tcg,thread=multi,tb-size=%d", m.TBMiB)
}

func (m Machine) boot() []string {
	if m.Kernel == "" {
		return []string{"-boot", "strict=on"}
	}
	args := []string{"-kernel", m.Kernel, "-append", m.Cmdline}
	if m.Initrd != "" {
		args = append(args, "-initrd", m.Initrd)
	}
	return args
}

// node is one block device or object of QEMU. JSON keeps odd characters of a path
// from being read as options.
type node map[string]any

func (n node) arg(flag string) []string {
	raw, err := json.Marshal(n)
	if err != nil {
		panic(err) // strings, numbers and bools only
	}
	return []string{flag, string(raw)}
}

// disks use the host's page cache and pass the guest's flushes on. Killing QEMU
// loses nothing the guest had flushed, and neither does a power cut of the host.
func (m Machine) disks() []string {
	file := func(name, path string, readOnly bool) node {
		return node{
			"driver": "file", "node-name": name, "filename": path, "read-only": readOnly,
			"auto-read-only": false, "discard": "unmap",
		}
	}
	var args []string
	var below any
	for i, path := range m.Bases {
		name := "base" + strconv.Itoa(i)
		image := file(name+"-file", path, true)
		// Nobody writes to it, and everybody may read it: whoever locked it could
		// keep all VMs from starting.
		image["locking"] = "off"
		args = append(args, image.arg("-blockdev")...)
		args = append(args, node{
			"driver": "qcow2", "node-name": name, "file": name + "-file", "read-only": true, "backing": below,
		}.arg("-blockdev")...)
		below = name
	}
	args = append(args, file("root-file", m.Disk, false).arg("-blockdev")...)
	args = append(args, node{
		"driver": "qcow2", "node-name": "root", "file": "root-file", "backing": below,
		"discard": "unmap", "detect-zeroes": "unmap",
	}.arg("-blockdev")...)
	args = append(args, file("seed-file", m.Seed, true).arg("-blockdev")...)
	args = append(args, node{
		"driver": "raw", "node-name": "seed", "file": "seed-file", "read-only": true,
	}.arg("-blockdev")...)
	if m.Bus == VirtioSCSI {
		return args // their controller comes first, see devices
	}
	return append(args,
		"-device", "virtio-blk-pci,id=disk0,drive=root,serial=root,disable-legacy=on,bootindex=1",
		"-device", "virtio-blk-pci,id=disk1,drive=seed,serial=seed,disable-legacy=on",
	)
}

func (m Machine) devices() []string {
	args := []string{
		"-netdev", "tap,id=net0,vhost=off,fd=" + strconv.Itoa(m.Tap),
		// No announcement: a guest that woke up has another's address at first.
		"-device", "virtio-net-pci,id=nic0,netdev=net0,disable-legacy=on,romfile=,guest_announce=off,mac=" + m.MAC,
		"-chardev", "socket,id=monitor,server=on,wait=off,fd=" + strconv.Itoa(m.Monitor),
		"-mon", "chardev=monitor,mode=control",
		"-chardev", "socket,id=channel,server=on,wait=off,fd=" + strconv.Itoa(m.Channel),
		"-chardev", "ringbuf,id=" + ConsoleDevice + ",size=" + strconv.Itoa(ConsoleBytes),
		// By default it has 31 ports, and two queues of each to set up and to watch.
		"-device", "virtio-serial-pci,id=serial0,disable-legacy=on,max_ports=2",
		"-device", m.console(),
		"-device", "virtserialport,bus=serial0.0,nr=1,chardev=channel,name=" + ChannelPort,
		// Also without a disk of its own: disks can be plugged in later.
		"-device", "virtio-scsi-pci,id=scsi0,disable-legacy=on",
		"-object", "rng-builtin,id=rng0",
		"-device", "virtio-rng-pci,rng=rng0,disable-legacy=on",
	}
	if m.Bus == VirtioSCSI {
		args = append(args,
			"-device", "scsi-hd,id=disk0,bus=scsi0.0,scsi-id=0,drive=root,serial=root,bootindex=1",
			"-device", "scsi-cd,id=disk1,bus=scsi0.0,scsi-id=1,drive=seed,serial=seed",
		)
	}
	for _, v := range m.Volumes {
		args = append(args, v.args()...)
	}
	return args
}

// console is the quick one where the kernel is told of it, and otherwise the
// serial port, which firmware and boot loader know.
func (m Machine) console() string {
	if m.Kernel == "" {
		return "isa-serial,chardev=" + ConsoleDevice
	}
	return "virtconsole,bus=serial0.0,nr=0,chardev=" + ConsoleDevice
}
