package conformance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/agentlab/agentlab/sdk/exposure"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/network"
	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secrets"
)

const (
	handTimeout = 5 * time.Second // of a binary that a person starts
	answerLimit = 2 * time.Second // of GetInfo and Health
	endLimit    = 5 * time.Second // of a process that is told to end
)

// subject is the state of one check of the protocol.
type subject struct {
	Binary
	*process
}

// Base checks what every plugin serves and how its process behaves.
func Base(b Binary) []Check {
	return bind("", protocolRules, func(ctx context.Context, _ Rule, fn func(*subject, context.Context) error) error {
		s := &subject{Binary: b}
		defer func() {
			if s.process != nil {
				s.end()
			}
		}()
		return fn(s, ctx)
	})
}

var protocolRules = []ruled[*subject]{
	reads("protocol.version", 1, "starts the binary with --version",
		"Started with --version it prints its file name and its version on one line and ends with 0.", (*subject).version),
	reads("protocol.by-hand", 1, "starts the binary as a person would, without the cookie",
		"Started without the cookie it says on standard error what it is, prints nothing on standard output, and ends with another code than 0.", (*subject).byHand),
	reads("protocol.handshake", 1, "starts it and reads the first line of standard output",
		"The first line on standard output is the handshake, and nothing else is ever printed there.", (*subject).handshake),
	reads("protocol.mutual-tls", 1, "calls with the host's certificate, with none, and in the clear",
		"Only the host that started it can call it: both sides show a certificate.", (*subject).mutualTLS),
	reads("protocol.info", 1, "asks for GetInfo before Configure",
		"Answers before Configure, within two seconds.", (*subject).info),
	reads("protocol.schema", 1, "asks two processes for the schema and checks it",
		"Schema of the config body. Static for a given binary.", (*subject).schema),
	reads("protocol.validate", 1, "validates the configuration, then nonsense",
		"A problem of the configuration is a diagnostic, not an error.", (*subject).validate),
	reads("protocol.unconfigured", 1, "makes a call of the kind before Configure",
		"then the calls of the kind, which answer PRECONDITION before it.", (*subject).unconfigured),
	reads("protocol.configure", 1, "configures it, and makes a call of the kind",
		"Once per process, before any call of the kind.", (*subject).configures),
	reads("protocol.configure-again", 1, "configures it again, the same and differently",
		"The same request again is answered the same; a different one is PRECONDITION: start a new process.", (*subject).configureAgain),
	reads("protocol.other-kind", 1, "configures it for a kind that it does not serve",
		"What a plugin cannot do is UNSUPPORTED, at once and without a change.", (*subject).otherKind),
	reads("protocol.health", 1, "asks how it is, before and after Configure",
		"Whether calls would work now, and what is wrong. Cheap; polled.", (*subject).health),
	reads("protocol.log-level", 1, "sets every log level, and one that does not exist",
		"A request that can never work is INVALID, and changes nothing.", (*subject).logLevel),
	reads("protocol.errors", 1, "looks into errors",
		"Every error carries PluginError in its gRPC status details.", (*subject).errors),
	reads("protocol.large-message", 1, "sends a message of 8 MiB",
		"Messages may have up to 64 MiB.", (*subject).largeMessage),
	reads("protocol.malformed", 1, "sends bytes that are no message, and calls that do not exist",
		"What it does not understand is an error of that call alone.", (*subject).malformed),
	reads("protocol.stdout", 1, "reads standard output through a life at log level trace",
		"The first line on standard output is the handshake, and nothing else is ever printed there.", (*subject).stdout),
	reads("protocol.drain", 1, "drains it, and calls again",
		"Refuse new calls of the kind with UNAVAILABLE, finish what runs within the timeout, then answer.", (*subject).drain),
	reads("protocol.shutdown", 1, "ends it by the call Shutdown",
		"It ends within five seconds of Shutdown, of SIGTERM, and of the end of its standard input.", (*subject).shutdown),
	reads("protocol.terminate", 1, "ends it by SIGTERM",
		"It ends within five seconds of Shutdown, of SIGTERM, and of the end of its standard input.", (*subject).terminate),
	reads("protocol.lifeline", 1, "ends its standard input, as the end of its host does",
		"It ends within five seconds of Shutdown, of SIGTERM, and of the end of its standard input.", (*subject).cut),
}

// up starts the process and connects to it.
func (s *subject) up(ctx context.Context) error {
	p, err := s.spawn(ctx)
	if err != nil {
		return err
	}
	s.process = p
	return p.dial(ctx)
}

// configured does what up does, and configures it.
func (s *subject) configured(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	_, err := s.configure(ctx, s.conn)
	return err
}

func (s *subject) base() plugin.Base { return plugin.NewClient(s.conn) }

// read makes a call of the kind that changes nothing.
func (s *subject) read(ctx context.Context) error { return readCall(ctx, s.Kind, s.conn) }

func readCall(ctx context.Context, kind plugin.Kind, conn caller) error {
	calls := readCalls(kind, conn)
	if len(calls) == 0 {
		return fault.New(fault.Unsupported, "there is no kind %q", kind)
	}
	return calls[0](ctx)
}

// readCalls are calls of the kind that every plugin has and that change nothing.
func readCalls(kind plugin.Kind, conn caller) []func(context.Context) error {
	switch kind {
	case plugin.Hypervisor:
		h := hypervisor.NewClient(conn)
		return []func(context.Context) error{
			func(ctx context.Context) error { _, err := h.ListTemplates(ctx); return err },
			func(ctx context.Context) error { _, err := h.CheckHost(ctx); return err },
			func(ctx context.Context) error { _, err := h.ListVMs(ctx, "", true); return err },
			func(ctx context.Context) error { _, err := h.GetStats(ctx, nil); return err },
		}
	case plugin.Network:
		n := network.NewClient(conn)
		return []func(context.Context) error{
			func(ctx context.Context) error { _, err := n.ListAttachments(ctx, ""); return err },
			func(ctx context.Context) error { _, err := n.CheckHost(ctx, DefaultHost); return err },
		}
	case plugin.Secrets:
		return []func(context.Context) error{func(ctx context.Context) error { _, err := secrets.NewClient(conn).List(ctx); return err }}
	case plugin.Exposure:
		return []func(context.Context) error{func(ctx context.Context) error { _, err := exposure.NewClient(conn).List(ctx, ""); return err }}
	}
	return nil
}

// run runs the binary without a host.
func (s *subject) run(ctx context.Context, args ...string) (stdout, stderr string, state *os.ProcessState, err error) {
	ctx, cancel := context.WithTimeout(ctx, handTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.Path, args...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = s.environment(), "/", time.Second
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	if err := cmd.Start(); err != nil {
		return "", "", nil, fmt.Errorf("start %s: %w", s.Path, err)
	}
	_ = cmd.Wait() // the state says how it ended
	if ctx.Err() != nil {
		return "", "", nil, saw("it still ran after %s, and printed %q", handTimeout, tail(out.String()+text.String())).want("the end of the process")
	}
	return out.String(), text.String(), cmd.ProcessState, nil
}

func (s *subject) version(ctx context.Context) error {
	stdout, _, state, err := s.run(ctx, "--version")
	if err != nil {
		return err
	}
	words := strings.Fields(stdout)
	if state.ExitCode() != 0 || strings.Count(stdout, "\n") != 1 || len(words) != 2 {
		return saw("%s, and on standard output %q", state, tail(stdout)).want("exit status 0 and one line: %sNAME VERSION", plugin.BinaryPrefix)
	}
	if err := s.up(ctx); err != nil {
		return err
	}
	info, err := s.base().Info(ctx, "")
	if err != nil {
		return fmt.Errorf("get info: %w", err)
	}
	if words[0] != plugin.BinaryPrefix+info.Name || words[1] != info.Version {
		return saw("--version says %q, GetInfo %s %s", strings.TrimSpace(stdout), info.Name, info.Version).
			want("the same: %s%s %s", plugin.BinaryPrefix, info.Name, info.Version)
	}
	return nil
}

func (s *subject) byHand(ctx context.Context) error {
	stdout, stderr, state, err := s.run(ctx)
	if err != nil {
		return err
	}
	if state.ExitCode() <= 0 || stdout != "" || strings.TrimSpace(stderr) == "" {
		return saw("%s, %d bytes on standard output, %d on standard error", state, len(stdout), len(stderr)).
			want("exit status 1, nothing on standard output, and what it is on standard error")
	}
	return nil
}

func (s *subject) handshake(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	socket, _, err := s.address()
	if err != nil {
		return err
	}
	if filepath.Clean(filepath.Dir(socket)) != filepath.Clean(s.dir) && !strings.HasPrefix(socket, s.dir+"/") {
		return saw("its socket is %s", socket).want("one below PLUGIN_UNIX_SOCKET_DIR, which is %s", s.dir)
	}
	return nil
}

// serving asks the health service that go-plugin knows.
func (p *process) serving(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, handTimeout)
	defer cancel()
	answer, err := grpc_health_v1.NewHealthClient(p.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "plugin"})
	if err == nil && answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("it is %s", answer.GetStatus())
	}
	return err
}

func (s *subject) mutualTLS(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	socket, _, err := s.address()
	if err != nil {
		return err
	}
	for _, conn := range stranger(socket) {
		other := &process{conn: conn}
		err := other.serving(ctx)
		_ = conn.Close()
		if err == nil {
			return saw("a caller without the host's certificate got an answer").want("no connection")
		}
	}
	return s.alive(ctx)
}

// alive checks that the process still answers.
func (s *subject) alive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, handTimeout)
	defer cancel()
	if _, err := s.base().Info(ctx, ""); err != nil {
		return saw("afterwards it no longer answers: %v; on standard error: %q", err, tail(s.log.String())).want("an answer of GetInfo")
	}
	return nil
}

var semver = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)

func (s *subject) info(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	start := time.Now()
	info, err := s.base().Info(ctx, "0.0.0")
	if err != nil {
		return fmt.Errorf("get info: %w", err)
	}
	name, prefixed := strings.CutPrefix(filepath.Base(s.Path), plugin.BinaryPrefix)
	switch took := time.Since(start); {
	case took > answerLimit:
		return saw("it took %s", took.Round(time.Millisecond)).want("%s at most", answerLimit)
	case info.Name == "" || prefixed && info.Name != name:
		return saw("its name is %q", info.Name).want("%q, as the file is called", name)
	case !semver.MatchString(info.Version):
		return saw("its version is %q", info.Version).want("a semantic version, such as 1.0.0")
	case info.Description == "":
		return saw("it has no description").want("one sentence")
	case len(info.Kinds) == 0:
		return saw("its services are %q", info.Services).want("one of %q at least", serviceNames())
	}
	for _, tool := range info.Tools {
		if tool.Name == "" {
			return saw("a tool without a name: %+v", tool).want("what is looked up in PATH")
		}
	}
	return nil
}

func serviceNames() (out []string) {
	for _, k := range plugin.Kinds() {
		out = append(out, k.ServiceName())
	}
	return out
}

func (s *subject) stdout(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	if err := s.base().SetLogLevel(ctx, "trace"); err != nil {
		return fmt.Errorf("set log level: %w", err)
	}
	if _, err := s.configure(ctx, s.conn); err != nil {
		return err
	}
	if err := s.read(ctx); err != nil {
		return fmt.Errorf("call of the kind: %w", err)
	}
	if err := s.shutdown1(ctx); err != nil {
		return err
	}
	if more := s.more.String(); more != "" {
		return saw("after the handshake it printed %q", tail(more)).want("nothing more on standard output")
	}
	return nil
}

func (s *subject) drain(ctx context.Context) error {
	if err := s.configured(ctx); err != nil {
		return err
	}
	for range 2 {
		left, err := s.base().Drain(ctx, time.Second)
		if err != nil {
			return fmt.Errorf("drain: %w", err)
		}
		if left != 0 {
			return saw("with no call running, drain says that %d are unfinished", left).want("0")
		}
	}
	if err := wantClass("a call of the kind after drain", s.read(ctx), fault.Unavailable); err != nil {
		return err
	}
	return s.alive(ctx)
}

func (s *subject) shutdown(ctx context.Context) error {
	if err := s.configured(ctx); err != nil {
		return err
	}
	return s.shutdown1(ctx)
}

func (s *subject) shutdown1(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	// The server may stop before it answers, so the answer says nothing.
	_ = s.conn.Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	return s.exits(endLimit, "the call Shutdown")
}

func (s *subject) terminate(ctx context.Context) error {
	if err := s.configured(ctx); err != nil {
		return err
	}
	if err := s.cmd.Process.Signal(sigterm); err != nil {
		return fmt.Errorf("send SIGTERM: %w", err)
	}
	return s.exits(endLimit, "SIGTERM")
}

func (s *subject) cut(ctx context.Context) error {
	if err := s.configured(ctx); err != nil {
		return err
	}
	if err := s.lifeline.Close(); err != nil {
		return fmt.Errorf("close standard input: %w", err)
	}
	return s.exits(endLimit, "the end of its standard input")
}
