package control

import (
	"context"
	"net"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Permission is what a route asks of its caller.
type Permission string

// The permissions. The zero value is held by nobody, so a route that names none
// is denied.
const (
	PermPublic  Permission = "public"  // needs no identity
	PermRead    Permission = "read"    // look
	PermOperate Permission = "operate" // make, change, end, enter
)

// peer is who called, as the kernel says.
type peer struct {
	uid uint32
	pid int32
}

type peerKey struct{}

// withPeer records the credentials of a Unix socket's other end.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || credErr != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer{uid: cred.Uid, pid: cred.Pid})
}

func peerOf(r *http.Request) (peer, bool) {
	p, ok := r.Context().Value(peerKey{}).(peer)
	return p, ok
}

// authorize lets a caller pass or says why not. Whoever may open the Unix
// socket may do everything: its mode and group are the gate.
func authorize(r *http.Request, need Permission) error {
	switch need {
	case PermPublic:
		return nil
	case PermRead, PermOperate:
		if _, ok := peerOf(r); ok {
			return nil
		}
		return fault.New(fault.Denied, "caller is not known").WithHint("use the daemon's Unix socket")
	}
	return fault.New(fault.Denied, "nobody may call %s %s", r.Method, r.URL.Path)
}
