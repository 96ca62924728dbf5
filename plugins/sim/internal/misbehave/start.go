package misbehave

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/agentlab/agentlab/plugins/sim/world"
)

// socketDirKey names, in the environment of a plugin, the folder for its socket.
const socketDirKey = "PLUGIN_UNIX_SOCKET_DIR"

// AtStart misbehaves if the file beside the binary says so, and then does not
// return. It is called before anything else.
func AtStart() {
	self, err := os.Executable()
	if err != nil {
		return
	}
	do, err := world.AskedAtStart(filepath.Dir(self))
	switch {
	case errors.Is(err, fs.ErrPermission): // a host only asks us what we are, and lets us have nothing
	case err != nil:
		leave(err.Error(), 2)
	case do != "":
		start(do)
	}
}

func start(do world.Action) {
	switch do {
	case world.ExitEarly:
		leave("cannot read /etc/thing", 3)
	case world.ExitLate:
		say(listen(false), "")
		leave("changed its mind", 4)
	case world.Silent:
	case world.Mute:
		say(listen(true), "")
	case world.Chatter:
		fmt.Println("Welcome to my plugin!\x1b[2J \x00\xff")
	case world.EndlessLine:
		for block := bytes.Repeat([]byte("x"), 64<<10); ; {
			if _, err := os.Stdout.Write(block); err != nil {
				break
			}
		}
	case world.WrongVersion:
		fmt.Printf("1|99|unix|%s|grpc|\n", listen(false))
	case world.BadCertificate:
		say(listen(false), base64.RawStdEncoding.EncodeToString(bytes.Repeat([]byte("no certificate "), 20)))
	default:
		leave(fmt.Sprintf("%s asks for %q, which is not possible", world.StartFile, do), 2)
	}
	stay()
}

// stay keeps the process until it is killed: it does not even look at its
// standard input.
func stay() {
	for {
		time.Sleep(time.Hour)
	}
}

func leave(text string, code int) {
	fmt.Fprintln(os.Stderr, text)
	os.Exit(code)
}

// say prints the line that a host waits for, of protocol version 1.
func say(socket, certificate string) {
	fmt.Printf("1|1|unix|%s|grpc|%s\n", socket, certificate)
}

// listen makes a socket, accepts what connects if it is to, and never answers.
func listen(accept bool) string {
	path := filepath.Join(os.Getenv(socketDirKey), "mute")
	ln, err := net.Listen("unix", path)
	if err != nil {
		leave(err.Error(), 2)
	}
	go func() {
		for accept {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }() // held for as long as the process lives
		}
	}()
	return path
}
