package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// openTTY makes a pseudo terminal.
func openTTY() (control, tty *os.File, err error) {
	control, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(control.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(control.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		_ = control.Close()
	}
	return control, tty, err
}

// cmdTTY runs a command line with a terminal as its input and outputs, types
// the given text when the terminal shows a prompt, and writes what it showed to
// the file "screen", quoted line by line. The code comes first.
func cmdTTY(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: tty CODE TYPED command [arg…]")
	}
	control, tty, err := openTTY()
	ts.Check(err)
	defer func() { _ = control.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, lookPath(ts, args[2]), args[3:]...)
	cmd.Env, cmd.Dir = childEnv(ts), ts.MkAbs(".")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	ts.Check(cmd.Start())
	_ = tty.Close()
	var shown bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		typed := args[1] == ""
		buf := make([]byte, 4096)
		for {
			n, err := control.Read(buf)
			shown.Write(buf[:n])
			if !typed && bytes.HasSuffix(shown.Bytes(), []byte("[y/N] ")) {
				typed = true
				text, _ := strconv.Unquote(`"` + args[1] + `"`)
				_, _ = io.WriteString(control, text)
			}
			if err != nil {
				return
			}
		}
	}()
	_ = cmd.Wait()
	<-done
	var out strings.Builder
	for line := range strings.Lines(shown.String()) {
		fmt.Fprintln(&out, strconv.QuoteToASCII(line))
	}
	ts.Check(os.WriteFile(ts.MkAbs("screen"), []byte(out.String()), 0o600))
	ts.Logf("[screen]\n%s", out.String())
	if got := fmt.Sprint(cmd.ProcessState.ExitCode()); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// proxy runs a ProxyCommand as ssh does and prints what comes back.
func proxy(command string) error {
	cmd := exec.Command("/bin/sh", "-c", "exec "+command)
	cmd.Stdin, cmd.Stderr = strings.NewReader("hello\n"), os.Stderr
	out, err := cmd.Output()
	for line := range strings.Lines(string(out)) {
		fmt.Print("  through: ", line)
	}
	return err
}
