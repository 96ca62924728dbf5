package rehearse

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/seedapply"
)

// SSHD is where sshd of a guest listens.
const SSHD = "127.0.0.1:22"

// errMet ends a handshake when the keys are agreed upon.
var errMet = errors.New("far enough")

// login has sshd, where one listens, agree on keys with a client that goes away
// before it says who it is. sshd reads its host key for each connection, so there
// is one for as long as this takes; Assume makes another.
func login(ctx context.Context, l layout.Layout, address string) (err error) {
	if _, statErr := os.Stat(l.HostKey()); errors.Is(statErr, fs.ErrNotExist) {
		defer func() {
			for _, path := range []string{l.HostKey(), l.HostKey() + ".pub"} {
				if gone := os.Remove(path); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
					err = errors.Join(err, fmt.Errorf("remove host key of a rehearsal: %w", gone))
				}
			}
		}()
		if _, err := seedapply.NewHostKey(l.Lazily()); err != nil {
			return fmt.Errorf("rehearse a login: %w", err)
		}
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("rehearse a login: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	met := false
	_, _, _, err = ssh.NewClientConn(conn, address, &ssh.ClientConfig{HostKeyCallback: func(string, net.Addr, ssh.PublicKey) error {
		met = true
		return errMet
	}})
	if !met {
		return fmt.Errorf("rehearse a login: %w", err)
	}
	return nil
}
