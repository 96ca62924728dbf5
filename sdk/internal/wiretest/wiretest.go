package wiretest

import (
	"context"
	"net"
	"reflect"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/agentlab/agentlab/sdk/secret"
)

// Dial serves what register registers and connects to it, until the test ends.
func Dial(t *testing.T, register func(grpc.ServiceRegistrar), opts ...grpc.ServerOption) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer(opts...)
	register(server)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///test",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		<-served
	})
	return conn
}

// Filled gives a T in which no field is zero and no two alike. Named string
// types take their value from choices, keyed by type name, since only some are
// possible.
func Filled[T any](choices map[string]string) T {
	var out T
	f := filler{choices: choices}
	f.fill(reflect.ValueOf(&out).Elem())
	return out
}

type filler struct {
	choices map[string]string
	n       uint64
}

func (f *filler) fill(v reflect.Value) {
	f.n++
	switch special := v.Addr().Interface().(type) {
	case *time.Time:
		*special = time.Unix(int64(f.n)*1000, 123).UTC()
		return
	case *secret.Value:
		*special = secret.New("secret " + strconv.FormatUint(f.n, 10))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i))
		}
	case reflect.String:
		text := v.Type().Name() + strconv.FormatUint(f.n, 10)
		if choice, ok := f.choices[v.Type().Name()]; ok {
			text = choice
		}
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(int64(f.n))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(f.n)
	case reflect.Float64:
		v.SetFloat(float64(f.n) + 0.5)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	default:
		panic("wiretest: cannot fill " + v.Type().String())
	}
}
