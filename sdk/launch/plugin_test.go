package launch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/agentlab/agentlab/sdk/plugin"
	"github.com/agentlab/agentlab/sdk/secret"
	"github.com/agentlab/agentlab/sdk/secrets"
)

// The test binary is also the plugin: modeKey in the environment chooses what
// it does when it is started as one.
const modeKey = "LAUNCH_TEST_MODE"

func TestMain(m *testing.M) {
	if mode := os.Getenv(modeKey); mode != "" {
		actAs(mode)
	}
	goleak.VerifyTestMain(m)
}

func actAs(mode string) {
	switch mode {
	case "serve":
	case "announce":
		fmt.Fprintln(os.Stderr, "announced")
	case "exit":
		fmt.Fprintln(os.Stderr, "cannot read /etc/thing")
		os.Exit(3)
	case "chatter":
		fmt.Println("Welcome to my plugin!")
		time.Sleep(time.Hour)
	case "silent":
		time.Sleep(time.Hour)
	case "odd":
		for _, line := range oddLines() {
			fmt.Fprintln(os.Stderr, line)
		}
	case "host":
		actAsHost()
	}
	plugin.Serve(plugin.Plugin{
		Name: "toy", Version: "0.0.1", Description: "For tests.", Kinds: []plugin.Kind{plugin.Secrets},
		Configure: func(_ context.Context, _ plugin.HostContext, _ json.RawMessage, log hclog.Logger) (plugin.Instance, error) {
			return plugin.Instance{Service: secrets.Service(toy{log})}, nil
		},
	})
}

// oddLines are what a plugin may print and a host must survive.
func oddLines() []string {
	return []string{
		`{"@message":1}`, `{"@message":"x","@level":7}`, `{"@level":"info","@message":null}`, `{`, `null`, `[1]`,
		"\x1b[2Jcleared", "\xff\xfe",
		`{"@level":"error","@message":"disk is full","free":0,"nested":{"a":[1,null]},"@timestamp":12}`,
		strings.Repeat("x", 10<<20),
		`{"@level":"warn","@message":"after the long line"}`,
	}
}

// toy is a driver whose Open does what the name of the bundle says.
type toy struct{ log hclog.Logger }

func (toy) List(context.Context) ([]string, error) { return os.Environ(), nil }

func (t toy) Open(ctx context.Context, bundle, _ string) (secrets.Bundle, error) {
	switch bundle {
	case "panic":
		panic("no such luck")
	case "slow":
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
			return secrets.Bundle{}, ctx.Err()
		}
	case "print":
		fmt.Println(strings.Repeat("o", 1<<20))
		fmt.Println("printed last")
	case "log":
		t.log.Info("bundle opened", "bundle", bundle)
	case "big":
		return secrets.Bundle{Document: secret.New(strings.Repeat("b", 32<<20))}, nil
	case "spawn":
		cmd := exec.Command("/bin/sleep", "1000")
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return secrets.Bundle{}, err
		}
		return secrets.Bundle{Version: strconv.Itoa(cmd.Process.Pid)}, nil
	}
	return secrets.Bundle{Version: "1"}, nil
}

func (toy) Describe(context.Context, string) (secrets.Description, error) {
	comm, _ := os.ReadFile("/proc/self/comm")
	dir, _ := os.Getwd()
	fds, _ := os.ReadDir("/proc/self/fd")
	out := secrets.Description{File: strings.TrimSpace(string(comm)), Version: dir}
	for _, fd := range fds {
		target, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		out.Keys = append(out.Keys, target)
	}
	return out, nil
}
