package state

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

const (
	// burnFor is how long a VMID that turned out to be somebody else's is left
	// alone. Trying it again later is safe: the hypervisor refuses once more.
	burnFor = 24 * time.Hour
	// addressOffset leaves the low addresses of the subnet to the host.
	addressOffset = 16

	metaLastVMID = "last_vmid"
)

// Range is what VMIDs, addresses and interface names are chosen from.
type Range struct {
	First, Last      uint32       // VMIDs, both included
	Subnet           netip.Prefix // IPv4
	HostAddr         netip.Addr   // the host's own, never given away
	InterfacePattern string       // fmt pattern over the VMID: "tap%di0"
	CreatesInterface bool         // the hypervisor makes it, not the network plugin
}

// Reservation is what a sandbox holds.
type Reservation struct {
	VMID             uint32
	Address          netip.Addr
	CreatesInterface bool // the hypervisor makes its interface
	Attempted        bool // a VM of this number may exist
}

type held struct {
	vmid    uint32
	address string
}

// Reserve gives the sandbox a VMID, address, MAC and interface name that no
// other holds, or returns what it holds already. Numbers go round, so that a
// freed one rests as long as possible. fault.Exhausted when nothing is free.
func (s *Store) Reserve(ctx context.Context, sandboxID string, r Range) (sb lab.Sandbox, err error) {
	err = s.write(ctx, "reserve address", func(ctx context.Context, t *tx) error {
		if sb, err = readSandbox(ctx, t, sandboxID); err != nil || sb.VMID != 0 {
			return err
		}
		sb, err = t.reserve(ctx, sb, r)
		return err
	})
	return sb, err
}

// reserve gives a sandbox that holds nothing what it needs.
func (t *tx) reserve(ctx context.Context, sb lab.Sandbox, r Range) (lab.Sandbox, error) {
	err := t.exec(ctx, `DELETE FROM addresses WHERE burned = 1 AND created_at < ?`, millis(t.now.Add(-burnFor)))
	if err != nil {
		return sb, err
	}
	if sb.VMID, sb.Address, err = t.choose(ctx, r); err != nil {
		return sb, err
	}
	sb.MAC = randomMAC()
	sb.Interface = fmt.Sprintf(r.InterfacePattern, sb.VMID)
	return sb, t.hold(ctx, sb, r.CreatesInterface)
}

// choose finds a free VMID and the address that goes with it.
func (t *tx) choose(ctx context.Context, r Range) (vmid uint32, address netip.Addr, err error) {
	rows, err := many(ctx, t, func(row scanner) (h held, err error) {
		return h, row.Scan(&h.vmid, &h.address)
	}, "addresses", `SELECT vmid, CASE burned WHEN 1 THEN '' ELSE address END FROM addresses`)
	if err != nil {
		return 0, address, err
	}
	vmids, addresses := map[uint32]bool{}, map[string]bool{}
	for _, h := range rows {
		vmids[h.vmid], addresses[h.address] = true, true
	}
	vmid, err = t.chooseVMID(ctx, r, vmids)
	if err != nil {
		return 0, address, err
	}
	address, ok := chooseAddress(r, vmid, addresses)
	if !ok {
		return 0, address, fault.New(fault.Exhausted, "no address of %s is free", r.Subnet).
			WithHint("destroy sandboxes that are not needed, or choose a larger agent_subnet")
	}
	return vmid, address, nil
}

func (t *tx) chooseVMID(ctx context.Context, r Range, taken map[uint32]bool) (uint32, error) {
	if r.First == 0 || r.Last < r.First {
		return 0, fault.New(fault.Invalid, "VMID range %d to %d is empty", r.First, r.Last)
	}
	var last uint32
	// No row and no number both mean that there was none.
	_ = t.QueryRowContext(ctx, `SELECT CAST(value AS INTEGER) FROM meta WHERE key = ?`, metaLastVMID).Scan(&last)
	size := uint64(r.Last-r.First) + 1
	start := uint64(0)
	if last >= r.First && last < r.Last {
		start = uint64(last-r.First) + 1
	}
	for i := range size {
		vmid := r.First + uint32((start+i)%size)
		if taken[vmid] {
			continue
		}
		return vmid, t.exec(ctx, `INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value`,
			metaLastVMID, strconv.FormatUint(uint64(vmid), 10))
	}
	return 0, fault.New(fault.Exhausted, "no VMID from %d to %d is free", r.First, r.Last).
		WithHint("destroy sandboxes that are not needed, or give the hypervisor plugin a larger VMID range")
}

// chooseAddress prefers the address that follows from the VMID, so that the two
// are easy to tell from each other, and else takes the next free one. In a small
// subnet they go round as VMIDs do, as far as others are not in the way: what is
// known of an address, by neighbours and by the limits of its calls, is about its last
// sandbox for a while.
func chooseAddress(r Range, vmid uint32, taken map[string]bool) (netip.Addr, bool) {
	free := func(a netip.Addr) bool {
		return r.Subnet.Contains(a) && a != r.HostAddr && a != r.Subnet.Masked().Addr() && r.Subnet.Contains(a.Next()) && !taken[a.String()]
	}
	first := r.Subnet.Masked().Addr()
	size := uint64(1) << (first.BitLen() - r.Subnet.Bits())
	low, broadcast := uint64(addressOffset), uint64(1)
	if size <= 2*addressOffset {
		low = 2 // what is left then is the subnet's name and the host
	}
	start := low + uint64(vmid-r.First)%max(size-min(size, low+broadcast), 1)
	for i := range size {
		if a, ok := offset(first, (start+i)%size); ok && free(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func offset(a netip.Addr, n uint64) (netip.Addr, bool) {
	if !a.Is4() {
		return a, false
	}
	b := a.As4()
	sum := uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
	sum += n
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}), sum < 1<<32
}

// randomMAC gives a locally administered address in QEMU's range.
func randomMAC() string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", b[0], b[1], b[2])
}

func (t *tx) hold(ctx context.Context, sb lab.Sandbox, createsInterface bool) error {
	vmid, address := strconv.FormatUint(uint64(sb.VMID), 10), sb.Address.String()
	err := t.exec(ctx, `INSERT INTO addresses (vmid, sandbox_id, address, mac, interface, creates_interface, reason, created_at) VALUES (?,?,?,?,?,?,?,?)`,
		sb.VMID, sb.ID, address, sb.MAC, sb.Interface, createsInterface, "sandbox "+sb.Name, millis(t.now))
	if err != nil {
		return err
	}
	err = t.exec(ctx, `UPDATE sandboxes SET vmid = ?, address = ?, mac = ?, interface = ? WHERE id = ?`,
		sb.VMID, address, sb.MAC, sb.Interface, sb.ID)
	if err != nil {
		return err
	}
	return t.emit(ctx, lab.Event{
		Type: lab.EventSandboxAddressed, SandboxID: sb.ID, JobID: sb.JobID, Message: fmt.Sprintf("VMID %s, address %s", vmid, address),
		Fields: map[string]string{"vmid": vmid, "address": address, "mac": sb.MAC, "interface": sb.Interface},
	})
}

// Burn takes a VMID from a sandbox for good because it is somebody else's.
type Burn struct {
	SandboxID string
	VMID      uint32
	Reason    string
}

// BurnVMID also forgets the sandbox's address and tokens, since the seed that
// holds them names the wrong VMID, and begins a new network generation.
// fault.Conflict when the sandbox does not hold the VMID.
func (s *Store) BurnVMID(ctx context.Context, b Burn) error {
	return s.write(ctx, fmt.Sprintf("burn VMID %d", b.VMID), b.apply)
}

func (b Burn) apply(ctx context.Context, t *tx) error {
	ok, err := t.change(ctx, `UPDATE addresses SET burned = 1, attempted = 0, reason = ?, created_at = ? WHERE vmid = ? AND sandbox_id = ? AND burned = 0`,
		b.Reason, millis(t.now), b.VMID, b.SandboxID)
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.Conflict, "sandbox %s does not hold VMID %d", b.SandboxID, b.VMID)
	}
	if err := t.exec(ctx, `DELETE FROM tokens WHERE sandbox_id = ?`, b.SandboxID); err != nil {
		return err
	}
	err = t.exec(ctx, `UPDATE sandboxes SET vmid = 0, address = '', mac = '', interface = '', generation = generation + 1 WHERE id = ?`, b.SandboxID)
	if err != nil {
		return err
	}
	return t.emit(ctx, lab.Event{
		Type: lab.EventVMIDBurned, SandboxID: b.SandboxID, Message: b.Reason,
		Fields: map[string]string{"vmid": strconv.FormatUint(uint64(b.VMID), 10), "reason": b.Reason},
	})
}

// BurnedFor counts the VMIDs that the sandbox has met and lost.
func (s *Store) BurnedFor(ctx context.Context, sandboxID string) (int, error) {
	return one(ctx, s.reader, func(row scanner) (n int, err error) { return n, row.Scan(&n) }, "burned VMIDs",
		`SELECT count(*) FROM addresses WHERE sandbox_id = ? AND burned = 1`, sandboxID)
}

// markAttempted notes that a VM of the VMID that the sandbox holds, if it does, may
// exist from now on.
func (t *tx) markAttempted(ctx context.Context, sandboxID string) error {
	return t.exec(ctx, `UPDATE addresses SET attempted = 1 WHERE sandbox_id = ? AND burned = 0`, sandboxID)
}

// Reservation gives what the sandbox holds, or fault.NotFound.
func (s *Store) Reservation(ctx context.Context, sandboxID string) (Reservation, error) {
	return one(ctx, s.reader, func(row scanner) (r Reservation, err error) {
		var address string
		if err := row.Scan(&r.VMID, &address, &r.CreatesInterface, &r.Attempted); err != nil {
			return r, err
		}
		r.Address, err = netip.ParseAddr(address)
		return r, err
	}, "reservation of sandbox "+sandboxID, `SELECT vmid, address, creates_interface, attempted FROM addresses WHERE sandbox_id = ? AND burned = 0`, sandboxID)
}
