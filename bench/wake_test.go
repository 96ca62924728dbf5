package bench_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/channel"
)

const (
	handMAC     = "52:54:00:00:7f:01"
	handAddress = "10.77.99.1"
	handTimeout = 2 * time.Minute
)

// hand starts guests from a memory template as a person would who knows how: a
// new overlay, QEMU, load, go on, tell it who it is, run a command.
type hand struct {
	argv     []string // of our own QEMU
	template string   // folder of the memory template
	files    map[string]string
	net      *ownNet
	identity channel.Identity
	key      string // private key file
}

var nodeFile = regexp.MustCompile(`"filename":"([^"]*)",(?:"locking":"off",)?"node-name":"([a-z0-9]+)-file"`)

// newHand looks at a QEMU of ours that was started from memory.
func newHand(b *testing.B, l *labDaemon, pid int) *hand {
	b.Helper()
	h := &hand{argv: argvOf(b, pid), files: map[string]string{}, net: newOwnNet(b), key: l.sshKey()}
	for _, m := range nodeFile.FindAllStringSubmatch(strings.Join(h.argv, "\n"), -1) {
		h.files[m[2]] = m[1]
	}
	// The nearest below the root disk is the memory template's.
	h.template = filepath.Dir(h.files["base1"])
	public, err := os.ReadFile(h.key + ".pub")
	if err != nil {
		b.Fatal(err)
	}
	docs, err := seed.Render(handSeed(string(public), handMAC))
	if err != nil {
		b.Fatal(err)
	}
	h.identity = channel.Identity{MAC: handMAC, Seed: channel.Seed{UserData: docs.UserData, MetaData: docs.MetaData, NetworkConfig: docs.NetworkConfig}}
	// Our sandbox is destroyed before its seed is needed, whose size the guest knows.
	seedCopy := filepath.Join(b.TempDir(), "seed.iso")
	text, err := os.ReadFile(h.files["seed"])
	if err == nil {
		err = os.WriteFile(seedCopy, text, 0o600)
	}
	if err != nil {
		b.Fatal(err)
	}
	h.argv = replaced(h.argv, h.files["seed"], seedCopy)
	return h
}

func replaced(argv []string, pairs ...string) []string {
	r := strings.NewReplacer(pairs...)
	var out []string
	for _, a := range argv {
		out = append(out, r.Replace(a))
	}
	return out
}

// start gives the time to the output of the first command, over the channel or
// SSH. The network is there before the time begins.
func (h *hand) start(b *testing.B, bySSH bool) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), handTimeout)
	defer cancel()
	dir := b.TempDir()
	began := time.Now()
	qemu, err := h.spawn(ctx, dir)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = qemu.Process.Kill()
		_ = qemu.Wait()
	}()
	if err := wake(filepath.Join(dir, "monitor")); err != nil {
		b.Fatal(err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(dir, "channel"))
	if err != nil {
		b.Fatal(err)
	}
	guest := channel.New(conn)
	defer guest.Close()
	id := h.identity
	id.Entropy = make([]byte, 256)
	_, _ = rand.Read(id.Entropy)
	is, err := guest.Assume(ctx, id)
	if err == nil {
		err = guest.Go(ctx)
	}
	if err != nil {
		b.Fatal(err)
	}
	if bySSH {
		if conn, err = h.net.dial(ctx, net.JoinHostPort(handAddress, "22")); err == nil {
			err = sayOverSSH(ctx, conn, h.key, is.HostKey)
		}
	} else {
		err = say(ctx, guest)
	}
	if err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

// spawn starts our QEMU's arguments over a new overlay, with descriptors of the
// same kinds under the same numbers.
func (h *hand) spawn(ctx context.Context, dir string) (*exec.Cmd, error) {
	root := filepath.Join(dir, "root.qcow2")
	if out, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", h.files["base1"], root).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make overlay: %w: %s", err, out)
	}
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for _, name := range []string{"monitor", "channel"} {
		f, err := listening(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	ram, err := os.OpenFile(filepath.Join(h.template, "ram"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	files = append(files, ram)
	state, err := os.Open(filepath.Join(h.template, "state"))
	if err != nil {
		return nil, err
	}
	files = append(files, state)
	argv := replaced(h.argv, h.files["root"], root)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.ExtraFiles = slices.Insert(slices.Clone(files), 2, h.net.tap)
	cmd.Stderr = os.Stderr
	return cmd, cmd.Start()
}

func listening(path string) (*os.File, error) {
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = ln.Close() }()
	ln.SetUnlinkOnClose(false)
	return ln.File()
}

// wake loads the frozen guest and lets it go on.
func wake(monitor string) error {
	conn, err := net.Dial("unix", monitor)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(handTimeout))
	m := json.NewDecoder(conn)
	if _, err := told(m, "QMP"); err != nil {
		return err
	}
	for _, command := range []string{
		`{"execute":"qmp_capabilities"}`,
		`{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","state":true}]}}`,
		`{"execute":"migrate-incoming","arguments":{"uri":"fd:7"}}`,
	} {
		if err := ask(conn, m, command, nil); err != nil {
			return err
		}
	}
	for {
		var s struct{ Status string }
		if err := ask(conn, m, `{"execute":"query-migrate"}`, &s); err != nil {
			return err
		}
		if s.Status == "failed" {
			return errors.New("the migration failed")
		}
		if s.Status == "completed" {
			return ask(conn, m, `{"execute":"cont"}`, nil)
		}
		time.Sleep(time.Millisecond)
	}
}

func ask(w io.Writer, m *json.Decoder, command string, answer any) error {
	if _, err := fmt.Fprintln(w, command); err != nil {
		return err
	}
	raw, err := told(m, "return")
	if err == nil && answer != nil {
		err = json.Unmarshal(raw, answer)
	}
	return err
}

// told waits for a message that has the field, past events.
func told(m *json.Decoder, field string) (json.RawMessage, error) {
	for {
		var msg map[string]json.RawMessage
		if err := m.Decode(&msg); err != nil {
			return nil, fmt.Errorf("read from the monitor: %w", err)
		}
		if raw, ok := msg["error"]; ok {
			return nil, fmt.Errorf("qemu refuses: %s", raw)
		}
		if raw, ok := msg[field]; ok {
			return raw, nil
		}
	}
}
