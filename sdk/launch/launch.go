package launch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secret"
)

const (
	// maxFatal is how much is told of a panic's first line, or of a line that is
	// no handshake, in bytes.
	maxFatal = 200
	// handshakeTimeout bounds the time from exec to the first answered call. While
	// a host boots, or is overcommitted, a start that is cut off and begun again
	// would never end.
	handshakeTimeout = 30 * time.Second
	socketDir        = "p" // begins the name of a folder for the socket of one process
	// maxRunDir is the length of Spec.RunDir that still leaves room for the
	// names of go-plugin: the path of a Unix socket has at most 107 bytes.
	maxRunDir = 107 - len("/p1234567890/plugin-dir1234567890/plugin1234567890")
)

// Spec says what to start.
type Spec struct {
	Path       string // of the binary; symbolic links are followed, then checked
	Args       []string
	Kind, Name string       // of the block, for logs and errors
	SHA256     string       // pin in hex; "" takes any content
	RunDir     string       // existing folder for the socket; short
	Env        []string     // the whole environment, but for go-plugin's own
	Log        hclog.Logger // takes what the plugin logs and prints
	Grant      Grant        // what the process may do to the system
}

func (s Spec) label() string { return s.Kind + " " + s.Name }

// Process is a running plugin.
type Process struct {
	child  *child
	client *goplugin.Client
	conn   *grpc.ClientConn
	base   plugin.Base
	calls  *inFlight
	dir    string
	done   chan struct{}
}

// Exit tells how a process ended.
type Exit struct {
	Code   int    // -1 after a signal
	Signal string // "SIGKILL", "" without
	Output string // newest output, at most 64 KiB, log lines rendered as text
	Memory int64  // the most bytes that it ever held, 0 when nobody knows
}

// String is "ended with status 2" or "killed by SIGKILL", or with a panic or
// another fatal error of Go's runtime also what that was.
func (e Exit) String() string {
	if line := e.fatal(); line != "" && e.Signal == "" {
		return e.how() + ": " + line
	}
	return e.how()
}

// how is String without what the plugin said, which may hold a secret.
func (e Exit) how() string {
	if e.Signal != "" {
		return "killed by " + e.Signal
	}
	return fmt.Sprintf("ended with status %d", e.Code)
}

// fatal is the line that Go's runtime prints when it gives up.
func (e Exit) fatal() string {
	for line := range strings.Lines(e.Output) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			return line[:min(len(line), maxFatal)]
		}
	}
	return ""
}

// ExitOf tells how the process ended of a plugin that Start could not bring up,
// false when none was started.
func ExitOf(err error) (Exit, bool) {
	var f *failedStart
	if !errors.As(err, &f) {
		return Exit{}, false
	}
	return f.exit, true
}

// failedStart is the cause in an error of Start once there was a process.
type failedStart struct {
	error
	exit Exit
}

func (f *failedStart) Unwrap() error { return f.error }

// Start starts the plugin and returns once it answers calls. ctx bounds the
// start only. fault.NotFound and fault.Denied concern the binary;
// fault.Unavailable is a plugin that does not come up, with what it printed.
func Start(ctx context.Context, spec Spec) (*Process, error) {
	if spec.Log == nil {
		spec.Log = hclog.NewNullLogger()
	}
	if err := CheckRunDir(spec.RunDir); err != nil {
		return nil, err
	}
	file, err := openVerified(spec.Path, spec.SHA256)
	if err != nil {
		return nil, fmt.Errorf("start plugin %s: %w", spec.label(), err)
	}
	defer func() { _ = file.Close() }()
	if err := checkReach(file, spec.Grant); err != nil {
		return nil, fmt.Errorf("start plugin %s: %w", spec.label(), err)
	}
	keepDescriptors()
	dir, err := os.MkdirTemp(spec.RunDir, socketDir)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "start plugin %s: make folder for its socket: %w", spec.label(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	c := newChild(spec, file)
	p := &Process{child: c, calls: &inFlight{}, dir: dir, done: make(chan struct{})}
	p.client = newClient(ctx, c, dir, p.calls)
	// Nothing in go-plugin looks at ctx; a killed process ends all its waits.
	unwatch := context.AfterFunc(ctx, func() { _ = c.Kill(context.WithoutCancel(ctx)) })
	err = p.handshake(ctx)
	if !unwatch() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		p.abandon(ctx)
		return nil, startError(ctx, c, err)
	}
	go func() {
		<-c.exited
		p.release()
		close(p.done)
	}()
	return p, nil
}

// CheckRunDir is fault.Invalid for a folder whose path leaves no room for the
// names of sockets in it.
func CheckRunDir(dir string) error {
	if len(dir) <= maxRunDir {
		return nil
	}
	return fault.New(fault.Invalid, "folder for plugin sockets %s is longer than %d bytes", dir, maxRunDir).
		WithHint("choose a shorter run_dir")
}

// CleanRunDir removes the sockets of plugins whose host was killed, and nothing
// else. Nobody may start plugins there meanwhile.
func CleanRunDir(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, socketDir+"[0-9]*"))
	for _, name := range names {
		if _, foreign := strconv.Atoi(strings.TrimPrefix(filepath.Base(name), socketDir)); foreign != nil {
			continue
		}
		err = errors.Join(err, os.RemoveAll(name))
	}
	if err != nil {
		return fault.New(fault.Denied, "remove old plugin sockets: %w", err)
	}
	return nil
}

// keepDescriptors makes what this process inherited itself end at exec. All
// that Go opens does so anyway.
var keepDescriptors = sync.OnceFunc(func() {
	_ = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
})

func newClient(ctx context.Context, c *child, dir string, calls *inFlight) *goplugin.Client {
	deadline, _ := ctx.Deadline()
	return goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: plugin.ProtocolVersion, MagicCookieKey: plugin.CookieKey, MagicCookieValue: plugin.CookieValue,
		},
		Plugins:          goplugin.PluginSet{},
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     time.Until(deadline),
		Logger:           hclog.NewNullLogger(),
		SyncStdout:       &lines{pump: c.out},
		SyncStderr:       &lines{pump: c.out},
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: dir},
		GRPCDialOptions: append(calls.options(), grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(plugin.MaxMessage), grpc.MaxCallSendMsgSize(plugin.MaxMessage),
		)),
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, dir string) (runner.Runner, error) {
			c.env = cmd.Env
			return c, c.shelter(dir)
		},
	})
}

// handshake starts the process and makes one call, which proves that both
// sides hold each other's certificate.
func (p *Process) handshake(ctx context.Context) error {
	protocol, err := p.client.Client()
	if err != nil {
		return err
	}
	rpc, ok := protocol.(*goplugin.GRPCClient)
	if !ok {
		return errors.New("it does not speak gRPC")
	}
	p.conn, p.base = rpc.Conn, plugin.NewClient(rpc.Conn)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // gRPC would go on trying
		select {
		case <-p.child.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	err = p.probe(ctx)
	if ctx.Err() != nil {
		return errors.New("it answered no call")
	}
	return err
}

func (p *Process) probe(ctx context.Context) error {
	_, err := grpc_health_v1.NewHealthClient(p.conn).Check(ctx,
		&grpc_health_v1.HealthCheckRequest{Service: goplugin.GRPCServiceName}, grpc.WaitForReady(true))
	return err
}

// abandon ends what a failed start left.
func (p *Process) abandon(ctx context.Context) {
	// go-plugin reports a broken handshake before the process that broke it
	// has ended; how it ends is the better explanation.
	select {
	case <-p.child.exited:
	case <-ctx.Done():
	case <-time.After(strayOutput):
	}
	_ = p.child.Kill(context.WithoutCancel(ctx))
	p.release()
}

// release frees go-plugin's side, which waits for nothing once the process has
// ended.
func (p *Process) release() {
	p.client.Kill()
	closeAll(p.child.sockets) // open still when there was no process
	_ = os.RemoveAll(p.dir)
}

func startError(ctx context.Context, c *child, err error) error {
	exit := c.exit()
	out := &fault.Error{Class: fault.Unavailable, Err: err}
	if exit.fatal() == "" { // else it says more than the last line of a stack
		out.Stderr = exit.Output
	}
	if c.started() {
		out.Err = &failedStart{err, exit}
	}
	why := strings.Join(strings.Fields(err.Error()), " ")
	switch {
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		why = fmt.Sprintf("it was not ready within %s", handshakeTimeout)
	case errors.Is(ctx.Err(), context.Canceled):
		why = "the start was cancelled"
	case strings.HasPrefix(why, "incompatible API version"):
		why = fmt.Sprintf("it speaks another version of the plugin protocol than this AgentLab, which speaks %d (%s)", plugin.ProtocolVersion, why)
	case exit.Signal == "" && c.started():
		out.ExitCode = exit.Code
		why = fmt.Sprintf("it %s before it was ready (%s)", exit, why)
	}
	out.Message = fmt.Sprintf("start plugin %s: %s", c.spec.label(), why)
	out.Hint = startHint(c.spec, err)
	return out
}

// startHint knows what the usual causes need.
func startHint(spec Spec, err error) string {
	if errors.Is(err, unix.EPERM) && spec.Grant.Confined {
		return "the daemon may not confine plugins here: give it CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID and CAP_SETPCAP, or set confine = false in the block"
	}
	hint := fmt.Sprintf("check that %s is a plugin of AgentLab for this machine: run it with --version", spec.Path)
	if g := spec.Grant; g.Confined && g.UID != os.Geteuid() {
		hint += fmt.Sprintf("; it ran as uid %d, who must be able to read what it needs, such as modules beside a script", g.UID)
	}
	return hint
}

// Conn carries calls to the plugin. It fails for good once the process ends.
func (p *Process) Conn() grpc.ClientConnInterface { return p.conn }

// Hide has the values that r knows taken out of all that the plugin logs or prints
// from now on.
func (p *Process) Hide(r *secret.Redactor) {
	p.child.out.mu.Lock()
	defer p.child.out.mu.Unlock()
	p.child.out.hidden = r
}

// PID is the process id.
func (p *Process) PID() int {
	p.child.mu.Lock()
	defer p.child.mu.Unlock()
	return p.child.pid
}

// Done is closed when the process and its group have ended and all that
// belonged to it is released.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit tells how it ended; meaningful after Done.
func (p *Process) Exit() Exit { return p.child.exit() }
