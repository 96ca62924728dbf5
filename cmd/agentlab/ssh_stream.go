package main

import (
	"context"
	"flag"
	"io"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
)

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
			_, err = io.Copy(env.Out, conn)
			return err
		},
	}
}
