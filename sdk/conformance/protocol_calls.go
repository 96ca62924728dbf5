package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/internal/proto/pluginv1"
	"github.com/agentlab/agentlab/sdk/plugin"
)

const sigterm = syscall.SIGTERM

// caller is a connection.
type caller = grpc.ClientConnInterface

func (s *subject) schema(ctx context.Context) error {
	var first *plugin.Schema
	for range 2 {
		if s.process != nil {
			s.end()
		}
		if err := s.up(ctx); err != nil {
			return err
		}
		schema, err := s.base().Schema(ctx)
		if err != nil {
			return fmt.Errorf("get schema: %w", err)
		}
		if first == nil {
			first = schema
		} else if !reflect.DeepEqual(first, schema) {
			return saw("a second process publishes another schema").want("the same for a given binary")
		}
	}
	if first.Version < 1 {
		return saw("the schema has version %d", first.Version).want("1 or more")
	}
	return checkBlock(first.Block, "")
}

func (s *subject) validate(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	cfg, err := s.whole(ctx, s.base())
	if err != nil {
		return err
	}
	for range 2 {
		diags, err := s.base().Validate(ctx, cfg)
		if err != nil {
			return fmt.Errorf("validate: %w", err)
		}
		if err := refusal("validate", diags); err != nil {
			return err
		}
	}
	for _, nonsense := range []string{``, `{`, `[]`, `null`, `{"there is no such key":1}`} {
		_, err := s.base().Validate(ctx, json.RawMessage(nonsense))
		if err != nil && !errors.Is(err, fault.Invalid) {
			return saw("validate of %q: %v (class %s)", nonsense, err, fault.ClassOf(err)).want("a diagnostic, or an error of class invalid")
		}
	}
	return s.alive(ctx)
}

func (s *subject) unconfigured(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	return wantClass("a call of the kind before configure", s.read(ctx), fault.Precondition)
}

func (s *subject) configures(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	capabilities, err := s.configure(ctx, s.conn)
	if err != nil {
		return err
	}
	for _, c := range capabilities {
		if !slices.Contains(capabilitiesOf(s.Kind), c) {
			return saw("it says that it can %q", c).want("capabilities of the contract: %s", strings.Join(capabilitiesOf(s.Kind), ", "))
		}
	}
	if err := s.read(ctx); err != nil {
		return fmt.Errorf("call of the kind: %w", err)
	}
	return nil
}

func (s *subject) configureAgain(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	first, err := s.configure(ctx, s.conn)
	if err != nil {
		return err
	}
	second, err := s.configure(ctx, s.conn)
	if err != nil {
		return fmt.Errorf("again: %w", err)
	}
	if !slices.Equal(first, second) {
		return saw("the same request again is answered with capabilities %q", second).want("%q, as before", first)
	}
	cfg, err := s.whole(ctx, s.base())
	if err != nil {
		return err
	}
	other := s.host()
	other.Instance = "another"
	_, _, err = s.base().Configure(ctx, other, cfg)
	return wantClass("a different configure", err, fault.Precondition)
}

func (s *subject) otherKind(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	info, err := s.base().Info(ctx, "")
	if err != nil {
		return fmt.Errorf("get info: %w", err)
	}
	for _, k := range plugin.Kinds() {
		if slices.Contains(info.Kinds, k) {
			continue
		}
		cfg, err := s.whole(ctx, s.base())
		if err != nil {
			return err
		}
		host := s.host()
		host.Kind = k
		_, _, err = s.base().Configure(ctx, host, cfg)
		return wantClass("configure as "+string(k), err, fault.Unsupported)
	}
	return fmt.Errorf("%w: a kind that it does not serve", ErrSkipped)
}

func (s *subject) health(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	if _, err := s.asked(ctx); err != nil {
		return fmt.Errorf("before configure: %w", err)
	}
	if _, err := s.configure(ctx, s.conn); err != nil {
		return err
	}
	h, err := s.asked(ctx)
	if err != nil {
		return err
	}
	if h.State != plugin.Ready && h.Message == "" {
		return saw("it is %s without a message", h.State).want("what is wrong")
	}
	return nil
}

// asked asks for its health and minds the time and the state.
func (s *subject) asked(ctx context.Context) (plugin.Health, error) {
	start := time.Now()
	answer, err := pluginv1.NewPluginServiceClient(s.conn).Health(ctx, &pluginv1.HealthRequest{})
	switch took := time.Since(start); {
	case err != nil:
		return plugin.Health{}, fmt.Errorf("health: %w", err)
	case took > answerLimit:
		return plugin.Health{}, saw("health took %s", took.Round(time.Millisecond)).want("%s at most", answerLimit)
	case answer.GetState() == pluginv1.HealthResponse_STATE_UNSPECIFIED:
		return plugin.Health{}, saw("health has no state").want("ready, degraded or unavailable")
	}
	return s.base().Health(ctx)
}

func (s *subject) logLevel(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	for _, level := range []string{"trace", "debug", "info", "warn", "error"} {
		if err := s.base().SetLogLevel(ctx, level); err != nil {
			return fmt.Errorf("set log level %s: %w", level, err)
		}
	}
	return wantClass("set log level loud", s.base().SetLogLevel(ctx, "loud"), fault.Invalid)
}

func (s *subject) errors(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	_, err := pluginv1.NewPluginServiceClient(s.conn).SetLogLevel(ctx, &pluginv1.SetLogLevelRequest{Level: "loud"})
	for _, d := range status.Convert(err).Details() {
		if e, ok := d.(*pluginv1.PluginError); ok && e.GetClass() == pluginv1.Class_CLASS_INVALID && e.GetMessage() != "" {
			return nil
		}
	}
	return saw("the error of a wrong log level is %v with details %v", err, status.Convert(err).Details()).
		want("agentlab.plugin.v1.PluginError among them, with its class and a message")
}

func (s *subject) largeMessage(ctx context.Context) error {
	if err := s.up(ctx); err != nil {
		return err
	}
	big := fmt.Appendf(nil, `{"there is no such key":%q}`, strings.Repeat("x", 8<<20))
	_, err := s.base().Validate(ctx, big)
	if err != nil && !errors.Is(err, fault.Invalid) {
		return saw("a message of 8 MiB: %v (class %s)", err, fault.ClassOf(err)).want("that it arrives")
	}
	return s.alive(ctx)
}

// noise is a codec that sends bytes as they are.
type noise struct{}

func (noise) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (noise) Unmarshal([]byte, any) error   { return nil }
func (noise) Name() string                  { return "proto" }

func (s *subject) malformed(ctx context.Context) error {
	if err := s.configured(ctx); err != nil {
		return err
	}
	for _, method := range []string{"/agentlab.plugin.v1.PluginService/Drain", "/" + s.Kind.ServiceName() + "/CheckHost"} {
		err := s.conn.Invoke(ctx, method, []byte{0xff, 0xff, 0xff, 0xff, 0x01}, nil, grpc.ForceCodec(noise{}))
		if err == nil {
			return saw("%s took bytes that are no message", method).want("an error")
		}
	}
	err := s.conn.Invoke(ctx, "/"+s.Kind.ServiceName()+"/ThereIsNoSuchCall", &pluginv1.DrainResponse{}, &pluginv1.DrainResponse{})
	if status.Code(err) != codes.Unimplemented {
		return saw("a call that does not exist: %v", err).want("UNIMPLEMENTED")
	}
	return s.alive(ctx)
}
