package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
)

// silentFor is how long a person waits for the guest before being told.
const silentFor = 3 * time.Second

// sshStreamCommand is what ssh runs as its ProxyCommand.
func sshStreamCommand() cli.Command {
	var port int
	return cli.Command{
		Name: "ssh-stream", Args: "SANDBOX", Synopsis: "copy bytes between a sandbox's port and this process", MinArgs: 1, MaxArgs: 1, Hidden: true,
		Flags: func(fs *flag.FlagSet) { fs.IntVar(&port, "port", 22, "`port` in the guest") },
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			if err := checkPort(port); err != nil {
				return err
			}
			c, err := connect(env)
			if err != nil {
				return err
			}
			waiting := time.AfterFunc(silentFor, func() {
				fmt.Fprintln(env.Err, "the sandbox has not answered yet, waiting…")
			})
			defer waiting.Stop()
			conn, err := c.DialSandbox(ctx, args[0], uint16(port))
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			go func() { // ends with the process: reading standard input cannot be cut short
				_, _ = io.Copy(conn, env.In)
				if half, ok := conn.(interface{ CloseWrite() error }); ok {
					_ = half.CloseWrite()
				}
			}()
			first := make([]byte, 1)
			if _, err := io.ReadFull(conn, first); err != nil {
				return unlessEOF(err)
			}
			waiting.Stop()
			_, err = io.Copy(env.Out, io.MultiReader(bytes.NewReader(first), conn))
			return err
		},
	}
}

func unlessEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
