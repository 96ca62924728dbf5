package driver

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/agentlab/agentlab/plugins/qemu/internal/accel"
	"github.com/agentlab/agentlab/plugins/qemu/internal/hostcheck"
	"github.com/agentlab/agentlab/plugins/qemu/internal/memory"
	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/record"
	"github.com/agentlab/agentlab/plugins/qemu/internal/tap"
	"github.com/agentlab/agentlab/plugins/qemu/internal/template"
	"github.com/agentlab/agentlab/plugins/qemu/internal/volume"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
)

// InterfacePattern gives a VM's tap by its VMID.
const InterfacePattern = "tap%di0"

// Files in a VM's folder.
const (
	diskName    = "disk.qcow2"
	seedName    = "seed.iso"
	consoleName = "console.log"
	monitorName = "qmp.sock"
	channelName = "channel.sock"
)

const (
	monitorTimeout = 2 * time.Second
	// On an overloaded host QEMU may get to a command late, and giving up would
	// undo a start that was about to succeed.
	commandTimeout = 10 * time.Second
	readyTimeout   = 30 * time.Second // from start to the first answer
	endTimeout     = 5 * time.Second  // from quit or SIGKILL to the end
	cleanTimeout   = 15 * time.Second
	guestTimeout   = 10 * time.Second
	healthTimeout  = 1500 * time.Millisecond
)

// Driver implements hypervisor.Driver and the optional interfaces that are
// named where they are implemented.
type Driver struct {
	cfg      Config
	state    string
	store    *record.Store
	volumes  *volume.Store
	catalog  template.Catalog
	chooser  *accel.Chooser
	versions *hostcheck.Versions
	memory   *memory.Store
	cache    *memory.Store // shared with other state folders; may be nil
	vault    memory.Vault
	bootID   string
	log      hclog.Logger

	openTap func(name string) (*os.File, error)
	replug  func(f *os.File, name string) error
	greet   func(conn net.Conn) guest
	find    func(uid uint32) ([]procfs.Identity, error)
	// How long others are waited for; tests do so less where nobody will come.
	guestWait   time.Duration // for a guest to say whether it uses a disk
	monitorWait time.Duration // for the answer to one question to a running QEMU
	quitWait    time.Duration // for the end of a QEMU that was told to quit
	// crash is called between the steps of a call; tests end the process there.
	crash func(step string)

	monitors keyed // one client of a QEMU's monitor at a time
	warming  warming
	spares   *spares
	channels channels

	mu      sync.Mutex // mu guards: samples
	samples map[uint32]sample
}

var (
	_ hypervisor.Driver         = (*Driver)(nil)
	_ hypervisor.ConsoleReader  = (*Driver)(nil)
	_ hypervisor.TemplateWarmer = (*Driver)(nil)
)

// New opens the state folder, which must exist, and removes what interrupted
// calls left in it. Running VMs are left alone.
func New(cfg Config, state string, log hclog.Logger) (*Driver, error) {
	if problems := cfg.Problems(); len(problems) > 0 {
		return nil, fault.New(fault.Invalid, "%s: %s", problems[0].Key, problems[0].Text)
	}
	store, err := record.Open(state)
	if err != nil {
		return nil, err
	}
	if err := store.Sweep(); err != nil {
		return nil, err
	}
	frozen, err := memory.Open(state)
	if err != nil {
		return nil, err
	}
	volumes, err := volume.Open(state)
	if err != nil {
		return nil, err
	}
	if err := volumes.Sweep(); err != nil {
		return nil, err
	}
	bootID, err := bootID()
	if err != nil {
		return nil, err
	}
	return &Driver{
		cfg: cfg, state: state, store: store, volumes: volumes, memory: frozen, cache: openCache(cfg, log),
		vault: memory.Vault{Memory: hostcheck.Memory}, bootID: bootID, log: log,
		catalog:   template.Catalog{Folders: cfg.Templates, Parent: cfg.TemplateDir},
		chooser:   &accel.Chooser{Want: cfg.Accel, State: state, Device: accel.Device, Measure: accel.Measure, Log: log.Named("accel")},
		versions:  &hostcheck.Versions{},
		openTap:   tap.Open,
		replug:    tap.Replug,
		greet:     func(conn net.Conn) guest { return channel.New(conn) },
		find:      procfs.Find,
		guestWait: guestTimeout, monitorWait: monitorTimeout, quitWait: endTimeout,
		crash:   func(string) {},
		spares:  newSpares(),
		samples: map[uint32]sample{},
	}, nil
}

// openCache gives nil for none. Without it templates are made once more.
func openCache(cfg Config, log hclog.Logger) *memory.Store {
	if cfg.MemoryCache == "" || !cfg.warms() {
		return nil
	}
	cache, err := memory.OpenCache(cfg.MemoryCache)
	if err != nil {
		log.Warn("memory templates are not shared", "err", err, "hint", fault.HintOf(err))
		return nil
	}
	return cache
}

func (d *Driver) hostCheck() hostcheck.Check {
	return hostcheck.Check{
		Binary: d.cfg.QEMUBinary, State: d.state, Catalog: d.catalog, Chooser: d.chooser, Versions: d.versions,
	}
}

// CheckHost implements hypervisor.Driver.
func (d *Driver) CheckHost(ctx context.Context) (hypervisor.HostReport, error) {
	report := hypervisor.HostReport{
		Findings: append(d.hostCheck().Findings(ctx), d.memoryFinding(), d.sparesFinding()), Cores: uint32(runtime.NumCPU()),
		VMIDFirst: d.cfg.VMIDFirst, VMIDLast: d.cfg.VMIDLast, InterfacePattern: InterfacePattern,
	}
	// What cannot be read is a finding already; its figure stays 0.
	report.MemoryBytes, report.MemoryFreeBytes, _ = hostcheck.Memory()
	report.DiskFreeBytes, _ = hostcheck.DiskFree(d.state)
	return report, ctx.Err()
}

// Health tells in a few milliseconds why no VM could be started now, and what
// to do about it; "" when one could. A QEMU that does not say its version by then
// starts none.
func (d *Driver) Health(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	var out []string
	for _, f := range d.hostCheck().Unfit(ctx) {
		out = append(out, f.Message+" ("+f.Fix+")")
	}
	return strings.Join(out, "; ")
}

// owned loads a record for a change and compares the mark. NotFound and
// Precondition are the caller's to tell apart.
func (d *Driver) owned(ref hypervisor.Ref) (*record.VM, error) {
	v, err := d.store.Load(ref.VMID)
	if errors.Is(err, record.ErrUnreadable) {
		return nil, fault.New(fault.Precondition, "owner of vm %d is not known: %w", ref.VMID, err).
			WithHint("%s", fault.HintOf(err)).WithResource("vm %d", ref.VMID)
	}
	if err != nil {
		return nil, err
	}
	if ref.Owner == "" || v.Owner != ref.Owner {
		return nil, fault.New(fault.Precondition, "vm %d belongs to %s, not to %q", ref.VMID, v.Owner, ref.Owner).
			WithResource("vm %d", ref.VMID).WithHolder(v.Owner)
	}
	return v, nil
}

func validOwner(owner string) error {
	if owner == "" || len(owner) > 512 || strings.ContainsFunc(owner, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fault.New(fault.Invalid, "owner mark %q is empty, too long or holds control characters", owner)
	}
	return nil
}
