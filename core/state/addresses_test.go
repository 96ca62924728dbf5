package state

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

func TestReserve(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	a, b := putSandbox(t, s, "a"), putSandbox(t, s, "b")
	if a.VMID != 1000 || a.Address.String() != "10.77.0.16" || a.Interface != "tap1000i0" || !strings.HasPrefix(a.MAC, "52:54:00:") {
		t.Errorf("first holds %d %s %s %s", a.VMID, a.Address, a.Interface, a.MAC)
	}
	if b.VMID != 1001 || b.Address.String() != "10.77.0.17" || a.MAC == b.MAC {
		t.Errorf("second holds %d %s", b.VMID, b.Address)
	}
	if again := firstOf(s.Reserve(ctx, a.ID, testRange)); again.VMID != a.VMID || again.MAC != a.MAC {
		t.Errorf("a second call gives %d %s", again.VMID, again.MAC)
	}
	check(t, s.Commit(ctx, Commit{Sandboxes: []SandboxChange{{ID: a.ID, To: lab.SandboxDestroyed}}}))
	if c := putSandbox(t, s, "c"); c.VMID != 1002 {
		t.Errorf("VMID %d is used again at once", c.VMID)
	}
	_, err := s.Reservation(ctx, a.ID)
	wantClass(t, err, fault.NotFound)
}

func TestSubmitReserves(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	r := testRange
	r.Last = r.First
	sb := newSandbox("a")
	check(t, s.Submit(ctx, Submission{Sandbox: &sb, Reserve: &r}))
	if diff := cmp.Diff(firstOf(s.Sandbox(ctx, sb.ID)), sb, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("the row and what is returned differ: %s", diff)
	}
	held, err := s.Reservation(ctx, sb.ID)
	check(t, err)
	if sb.State != lab.SandboxProvisioning || sb.VMID == 0 || held.VMID != sb.VMID || held.Attempted {
		t.Errorf("%s with VMID %d, held is %+v", sb.State, sb.VMID, held)
	}
	next := newSandbox("b")
	wantClass(t, s.Submit(ctx, Submission{Sandbox: &next, Reserve: &r}), fault.Exhausted)
	if next.VMID != 0 || next.State != lab.SandboxRequested {
		t.Errorf("refused, it is %s with VMID %d", next.State, next.VMID)
	}
	_, err = s.Sandbox(ctx, next.ID)
	wantClass(t, err, fault.NotFound)
}

func TestBurnedVMIDIsNotGivenAgain(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	sb := putSandbox(t, s, "a")
	check(t, s.Commit(ctx, Commit{Attempted: []string{sb.ID}}))
	putToken(t, s, sb.ID, "t", sb.CreatedAt.AddDate(1, 0, 0))
	burn := Burn{SandboxID: sb.ID, VMID: sb.VMID, Reason: "somebody else's"}
	check(t, s.BurnVMID(ctx, burn))
	wantClass(t, s.BurnVMID(ctx, burn), fault.Conflict)
	next := firstOf(s.Reserve(ctx, sb.ID, testRange))
	if next.VMID == sb.VMID || next.Generation != sb.Generation+1 {
		t.Errorf("after %d comes %d, generation %d", sb.VMID, next.VMID, next.Generation)
	}
	if r, err := s.Reservation(ctx, sb.ID); err != nil || r.Attempted || r.VMID != next.VMID {
		t.Errorf("reservation is %+v, %v", r, err)
	}
	_, err := s.Exchange(ctx, Exchange{Address: next.Address, TokenHash: hash("t"), CredentialHash: hash("c"), Now: sb.CreatedAt})
	wantClass(t, err, fault.Denied)
	small := testRange
	small.Last = 1001
	other := newSandbox("b")
	check(t, s.Submit(ctx, Submission{Sandbox: &other}))
	_, err = s.Reserve(ctx, other.ID, small)
	wantClass(t, err, fault.Exhausted)
	if fault.HintOf(err) == "" {
		t.Error("no hint")
	}
}

func TestAddressesOfASmallSubnetAreAllUsedOnce(t *testing.T) {
	s := open(t)
	r := Range{
		First: 1, Last: 100, Subnet: netip.MustParsePrefix("10.9.0.0/29"), HostAddr: netip.MustParseAddr("10.9.0.1"),
		InterfacePattern: "tap%di0",
	}
	seen := map[netip.Addr]bool{}
	for i := range 6 {
		sb := newSandbox(fmt.Sprintf("box-%d", i))
		check(t, s.Submit(t.Context(), Submission{Sandbox: &sb}))
		got, err := s.Reserve(t.Context(), sb.ID, r)
		if i == 5 {
			wantClass(t, err, fault.Exhausted)
			continue
		}
		check(t, err)
		seen[got.Address] = true
	}
	for _, never := range []string{"10.9.0.0", "10.9.0.1", "10.9.0.7"} {
		if seen[netip.MustParseAddr(never)] {
			t.Errorf("%s was given away", never)
		}
	}
	if len(seen) != 5 {
		t.Errorf("addresses given: %v", seen)
	}
}

// In a small subnet addresses go round: none is used much more than the others, also
// beside one that is held for good.
func TestAddressesGoRound(t *testing.T) {
	const vmids = 1200
	for subnet, usable := range map[string]int{"10.9.0.0/30": 1, "10.9.0.0/29": 5, "10.9.0.0/28": 13, "10.9.0.0/27": 29, "10.9.0.0/24": 239, "10.9.0.0/16": vmids} {
		r := Range{First: 1000, Last: 9999, Subnet: netip.MustParsePrefix(subnet), HostAddr: netip.MustParseAddr("10.9.0.1")}
		for _, held := range []bool{false, true} {
			taken, given := map[string]bool{}, map[netip.Addr]int{}
			if held && usable > 1 {
				stays, _ := chooseAddress(r, r.First, nil)
				taken[stays.String()] = true
			}
			for vmid := r.First; vmid < r.First+vmids; vmid++ {
				a, ok := chooseAddress(r, vmid, taken)
				if given[a]++; !ok || taken[a.String()] || given[a] > (1+len(taken))*(vmids/usable+1) {
					t.Fatalf("%s, held %t: vmid %d got %s, for the %dth time", subnet, held, vmid, a, given[a])
				}
			}
		}
	}
}

// TestAllocation makes, burns and destroys in any order: no two live sandboxes
// ever share anything, nothing leaves the range, and what is free is found.
func TestAllocation(t *testing.T) {
	dir, run := fastDir(t), 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		s, err := Open(t.Context(), filepath.Join(dir, fmt.Sprint(run)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		m := allocation{s: s, r: testRange, live: map[string]lab.Sandbox{}, burned: map[uint32]bool{}}
		m.r.Last = m.r.First + uint32(rapid.IntRange(0, 8).Draw(t, "size"))
		t.Repeat(map[string]func(*rapid.T){"reserve": m.reserve, "burn": m.burn, "destroy": m.destroy, "": m.check})
	})
}

type allocation struct {
	s      *Store
	r      Range
	made   int
	live   map[string]lab.Sandbox
	burned map[uint32]bool
}

func (m *allocation) reserve(t *rapid.T) {
	m.made++
	sb := newSandbox(fmt.Sprintf("box-%d", m.made))
	if err := m.s.Submit(t.Context(), Submission{Sandbox: &sb}); err != nil {
		t.Fatal(err)
	}
	m.take(t, sb.ID)
}

func (m *allocation) take(t *rapid.T, id string) {
	got, err := m.s.Reserve(t.Context(), id, m.r)
	free := int(m.r.Last-m.r.First) + 1 - len(m.live) - len(m.burned)
	if errors.Is(err, fault.Exhausted) && free == 0 {
		return
	}
	if err != nil || free == 0 {
		t.Fatalf("reserve with %d free: %v", free, err)
	}
	m.live[id] = got
}

func (m *allocation) any(t *rapid.T) lab.Sandbox {
	ids := make([]string, 0, len(m.live))
	for id := range m.live {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		t.Skip("none is live")
	}
	return m.live[rapid.SampledFrom(ids).Draw(t, "id")]
}

func (m *allocation) burn(t *rapid.T) {
	sb := m.any(t)
	if err := m.s.BurnVMID(t.Context(), Burn{SandboxID: sb.ID, VMID: sb.VMID, Reason: "taken"}); err != nil {
		t.Fatal(err)
	}
	delete(m.live, sb.ID)
	m.burned[sb.VMID] = true
	m.take(t, sb.ID)
}

func (m *allocation) destroy(t *rapid.T) {
	sb := m.any(t)
	if err := m.s.Commit(t.Context(), Commit{Sandboxes: []SandboxChange{{ID: sb.ID, To: lab.SandboxDestroyed}}}); err != nil {
		t.Fatal(err)
	}
	delete(m.live, sb.ID)
}

func (m *allocation) check(t *rapid.T) {
	seen := map[any]string{}
	for id := range m.live {
		sb, err := m.s.Sandbox(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []any{sb.VMID, sb.Address, sb.MAC, sb.Interface} {
			if seen[key] != "" {
				t.Fatalf("%s and %s share %v", id, seen[key], key)
			}
			seen[key] = id
		}
		if m.burned[sb.VMID] || sb.VMID < m.r.First || sb.VMID > m.r.Last || !m.r.Subnet.Contains(sb.Address) || sb.Address == m.r.HostAddr {
			t.Fatalf("%s holds %d %s", id, sb.VMID, sb.Address)
		}
	}
}
