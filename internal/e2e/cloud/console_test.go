package cloud_test

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ringBytes is the size of the ring that holds the console.
const ringBytes = 64 << 10

// console moves what QEMU's ring holds into the guest's console and gives all of
// it. Nothing else shows the console of a guest that is well.
func (g *guest) console(t testing.TB) string {
	t.Helper()
	sockets, err := filepath.Glob(filepath.Join(g.Dir, "data", "plugins", "*", "vms", "*", "qmp.sock"))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("monitors %q, %v", sockets, err)
	}
	text, err := ringRead(sockets[0])
	if err != nil {
		t.Fatal(err)
	}
	g.seen += text
	return g.seen
}

func ringRead(socket string) (string, error) {
	conn, err := net.DialTimeout("unix", socket, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	_, err = fmt.Fprintf(conn, `{"execute":"qmp_capabilities"}{"execute":"ringbuf-read","id":"ring","arguments":{"device":"console","size":%d}}`, ringBytes)
	if err != nil {
		return "", err
	}
	for from := json.NewDecoder(conn); ; {
		var reply struct {
			ID     string          `json:"id"`
			Return json.RawMessage `json:"return"`
			Error  json.RawMessage `json:"error"`
		}
		if err := from.Decode(&reply); err != nil {
			return "", err
		}
		if reply.ID != "ring" {
			continue // the greeting, the first answer, or an event
		}
		var text string
		if err := json.Unmarshal(reply.Return, &text); err != nil {
			return "", fmt.Errorf("%w: %s", err, reply.Error)
		}
		return text, nil
	}
}

// testConsole finds every stage of the boot on the console.
func (g *guest) testConsole(t *testing.T) {
	console := g.console(t)
	for _, want := range []string{"SeaBIOS", "GRUB loading", "Linux version", "Run the jobs of this sandbox"} {
		if !strings.Contains(console, want) {
			t.Errorf("the console does not show %q", want)
		}
	}
	if strings.Contains(console, planted) {
		t.Error("the console shows a secret")
	}
}
