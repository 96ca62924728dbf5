package plugin

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

// closeTimeout bounds Instance.Close at the end of the process.
const closeTimeout = 3 * time.Second

// Serve is the whole main of a plugin. It never returns: the process ends when
// the host says so, on SIGTERM, or when standard input ends, which it does when
// the host is gone.
func Serve(p Plugin) {
	if code, done := byHand(p, os.Args[1:], os.Getenv(CookieKey), os.Stdout, os.Stderr); done {
		os.Exit(code)
	}
	// What the host passed beyond the standard streams is not for programs that
	// the plugin runs.
	_ = unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC)
	// Started through a descriptor, the process would be called by its number.
	_ = os.WriteFile("/proc/self/comm", []byte(BinaryPrefix+p.Name), 0)
	log := hclog.New(&hclog.LoggerOptions{Name: p.Name, Level: hclog.Info, JSONFormat: true, Output: os.Stderr})
	s, err := NewServer(p, log)
	if err != nil {
		log.Error("plugin cannot be served", "err", err)
		os.Exit(1)
	}
	var once sync.Once
	leave := func(why string) {
		once.Do(func() {
			ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
			defer cancel()
			log.Debug("plugin ends", "cause", why)
			if err := closeBounded(ctx, s); err != nil {
				log.Error("close instance", "err", err)
				os.Exit(1)
			}
			os.Exit(0)
		})
		select {} // os.Exit runs elsewhere
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		leave("host is gone")
	}()
	go func() {
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGTERM)
		<-ch
		leave("terminated")
	}()
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: ProtocolVersion, MagicCookieKey: CookieKey, MagicCookieValue: CookieValue,
		},
		Plugins: goplugin.PluginSet{p.Name: &registration{server: s}},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, s.Options()...)...)
		},
		Logger: log,
	})
	leave("shut down")
}

// closeBounded does not wait for a Close that ignores its context.
func closeBounded(ctx context.Context, s *Server) error {
	done := make(chan error, 1)
	go func() { done <- s.Close(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// byHand answers a person who starts the binary.
func byHand(p Plugin, args []string, cookie string, stdout, stderr io.Writer) (code int, done bool) {
	if len(args) > 0 && (args[0] == "--version" || args[0] == "-version" || args[0] == "version") {
		fmt.Fprintf(stdout, "%s%s %s\n", BinaryPrefix, p.Name, p.Version)
		return 0, true
	}
	if cookie == CookieValue {
		return 0, false
	}
	fmt.Fprintf(stderr, "%s%s %s is a plugin of AgentLab: %s\n", BinaryPrefix, p.Name, p.Version, p.Description)
	for _, k := range p.Kinds {
		fmt.Fprintf(stderr, "agentlabd starts it for a block in config.hcl:\n\n  plugin %q %q {\n    config {}\n  }\n\n", k, p.Name)
	}
	return 1, true
}

// registration hooks the server into go-plugin.
type registration struct {
	goplugin.NetRPCUnsupportedPlugin
	server *Server
}

func (r *registration) GRPCServer(_ *goplugin.GRPCBroker, gs *grpc.Server) error {
	r.server.Register(gs)
	return nil
}

// GRPCClient is not used on this side.
func (r *registration) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, fmt.Errorf("plugin %s is not a host", r.server.plugin.Name)
}
