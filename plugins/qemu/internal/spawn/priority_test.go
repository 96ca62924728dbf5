package spawn

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestGiveWayAndCompete(t *testing.T) {
	needRoot(t)
	p := start(t, "exec sleep 60")
	group := func() string {
		t.Helper()
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/autogroup", p.PID))
		if os.IsNotExist(err) {
			t.Skip("needs a kernel with CONFIG_SCHED_AUTOGROUP")
		}
		if err != nil {
			t.Fatal(err)
		}
		_, nice, _ := strings.Cut(strings.TrimSpace(string(text)), " nice ")
		return nice
	}
	if now := group(); now != "0" {
		t.Fatalf("a new program's priority is %q", now)
	}
	p.GiveWay()
	if now := group(); now != "19" {
		t.Errorf("one that gives way has %q", now)
	}
	// Twice within the time in which the kernel refuses it.
	for range 2 {
		if err := p.Compete(); err != nil {
			t.Fatal(err)
		}
	}
	if now := group(); now != "0" {
		t.Errorf("one that competes again has %q", now)
	}
}
