package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
)

type sshRun struct {
	user     string
	identity string
	port     int
}

func sshCommand() cli.Command {
	r := &sshRun{}
	return cli.Command{
		Name: "ssh", Args: "SANDBOX [-- COMMAND…]", Synopsis: "open a shell in a sandbox, or run a command there",
		MinArgs: 1, MaxArgs: 1, Rest: true,
		Help: `
Connects to the sandbox directly when its SSH port answers from here, else
through the daemon. The guest's host key must be the one that the guest reported
to the daemon over its own channel. What stands behind -- is handed to ssh as it
is: the guest's shell reads the words joined by spaces.

A sandbox knows the key of the daemon's ssh_public_key_path. Its private half is
used where it lies beside and you may read it; else name it with --identity, or
ssh tries your own. A guest is not given a chance to ask for a password.
Forwardings and shared connections of the ssh configuration are not used. Exits
with the command's code, 255 like ssh when the connection fails, and 125 when
AgentLab does.`,
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&r.user, "user", "", "`user` in the guest (default: the profile's)")
			fs.StringVar(&r.identity, "identity", "", "private key `file` (default: the daemon's, where you may read it)")
			fs.IntVar(&r.port, "port", 22, "the guest's SSH `port`")
		},
		Run: r.run,
	}
}

func (r *sshRun) run(ctx context.Context, env *cli.Env, args []string) error {
	if err := checkPort(r.port); err != nil {
		return err
	}
	return ours(ctx, r.connect(ctx, env, args[0]))
}

func checkPort(port int) error {
	if port < 1 || port > 65535 {
		return fault.New(fault.Invalid, "--port: %d is not between 1 and 65535", port)
	}
	return nil
}

func (r *sshRun) connect(ctx context.Context, env *cli.Env, ref string) error {
	c, err := connect(env)
	if err != nil {
		return err
	}
	s, err := c.Sandbox(ctx, ref)
	if err != nil {
		return err
	}
	if err := reachable(s); err != nil {
		return err
	}
	files, err := newSSHFiles(s)
	if err != nil {
		return err
	}
	defer files.close()
	host, err := c.Host(ctx)
	if err != nil {
		return err
	}
	// A dev daemon's sandboxes are in its namespace: from here, the same address
	// is somebody else's.
	direct := !host.Dev && answers(s.Address, r.port)
	asked := r.identity
	if asked == "" && c.Local() {
		r.identity = readable(privateOf(host.SSHKey))
	}
	argv, err := r.argv(env, s, files.known(), direct)
	if err != nil {
		return err
	}
	err = runSSH(ctx, env, append([]string{"-E", files.said()}, argv...))
	words, _ := os.ReadFile(files.said()) // of ssh itself, not the guest's
	_, _ = forPeople(env.Err).Write(words)
	if exit, ok := errors.AsType[*exitError](err); ok && exit.code == exitSSH && bytes.Contains(words, []byte("Permission denied (")) {
		return &exitError{exitSSH, fault.New(fault.Denied, "sandbox %s takes none of these keys for user %s", s.Name, r.login(s)).
			WithHint("%s", r.refusedHint(s, keyHint(asked, host)))}
	}
	return err
}

// login is the guest's user that is asked for.
func (r *sshRun) login(s api.Sandbox) string { return cmp.Or(r.user, s.SSHUser, "agent") }

// refusedHint also says of a user who was named that there may be none: a guest
// refuses both alike.
func (r *sshRun) refusedHint(s api.Sandbox, aboutKeys string) string {
	usual := cmp.Or(s.SSHUser, "agent")
	if r.login(s) == usual {
		return aboutKeys
	}
	return fmt.Sprintf("there may be no user %s in the guest: leave --user out for %s; else %s", r.login(s), usual, aboutKeys)
}

// privateOf is where the private half of a public key lies beside it, if so.
func privateOf(public string) string {
	if private, ok := strings.CutSuffix(public, ".pub"); ok {
		return private
	}
	return ""
}

// readable is the path, or "" when this user may not read it.
func readable(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	_ = f.Close()
	return path
}

// keyHint says which key would have been right.
func keyHint(asked string, host api.Host) string {
	private := privateOf(host.SSHKey)
	switch {
	case host.SSHKey == "":
		return "the daemon has no ssh_public_key_path, so its sandboxes know no key: set it, and make a new sandbox"
	case private == "":
		return "a sandbox knows the key that " + host.SSHKey + " had when it was made; name its private half with --identity"
	case asked == private || asked == "" && readable(private) != "":
		return "a sandbox knows the key that " + host.SSHKey + " had when it was made; make a new one if that has changed since"
	}
	if readable(private) != "" {
		return "leave --identity out: the key that sandboxes know is " + private
	}
	return "a sandbox knows the key that " + host.SSHKey + " had when it was made: --identity " + private + ", with sudo where only root may read that"
}

var hostKey = regexp.MustCompile(`^ssh-ed25519 [A-Za-z0-9+/]+=*( [^\r\n]*)?$`)

// reachable refuses a sandbox whose identity cannot be checked.
func reachable(s api.Sandbox) error {
	switch {
	case lab.SandboxState(s.State).Starting():
		return fault.New(fault.Precondition, "sandbox %s is %s", s.Name, s.State).
			WithHint("%s", lab.WaitHint(s.Name))
	case s.State != string(lab.SandboxReady) && s.State != string(lab.SandboxRunning):
		return fault.New(fault.Precondition, "sandbox %s is %s", s.Name, s.State).WithHint("agentlab sandbox show %s tells more", s.Name)
	case s.HostKey == "":
		return fault.New(fault.Precondition, "sandbox %s has not reported its host key", s.Name).
			WithHint("it does so when it has booted; try again in a moment")
	case !hostKey.MatchString(s.HostKey):
		return fault.New(fault.Precondition, "what sandbox %s reported is not an ed25519 host key", s.Name)
	case net.ParseIP(s.Address) == nil:
		return fault.New(fault.Precondition, "sandbox %s has no address", s.Name)
	}
	return nil
}

// argv is the command line of ssh. Only keys written to known count. What the
// user's configuration would share with a guest stays here, and a connection
// left open to an earlier owner of the address is not taken for this one.
func (r *sshRun) argv(env *cli.Env, s api.Sandbox, known string, direct bool) ([]string, error) {
	argv := []string{
		"-o", "HostKeyAlias=" + s.ID, "-o", "UserKnownHostsFile=" + quoted(known), "-o", "GlobalKnownHostsFile=/dev/null",
		"-o", "StrictHostKeyChecking=yes", "-o", "CheckHostIP=no", "-o", "LogLevel=ERROR",
		"-o", "HostKeyAlgorithms=ssh-ed25519",
		"-o", "ServerAliveInterval=30", "-o", "ServerAliveCountMax=10", // a VM that is taken away says no farewell
		// A guest must not ask a person for a password. (An ssh without GSSAPI would
		// complain of being told not to use it.)
		"-o", "PreferredAuthentications=publickey", "-o", "PasswordAuthentication=no", "-o", "KbdInteractiveAuthentication=no",
		"-o", "UpdateHostKeys=no", "-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "ForwardAgent=no",
		"-o", "ForwardX11=no", "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no",
		"-p", strconv.Itoa(r.port), "-l", r.login(s),
	}
	if r.identity != "" {
		if _, err := os.Stat(r.identity); err != nil {
			return nil, fault.New(fault.Invalid, "--identity: %w", err).
				WithHint("name the file of a private key, or leave --identity out for the daemon's own key or those that your ssh tries")
		}
		argv = append(argv, "-i", r.identity, "-o", "IdentitiesOnly=yes")
	}
	proxy := "none" // also no ProxyJump
	if !direct {
		var err error
		if proxy, err = proxyCommand(env, s.ID, r.port); err != nil {
			return nil, err
		}
	}
	// Without "--" ssh would take options behind the address, too.
	argv = append(argv, "-o", "ProxyCommand="+proxy, "--", s.Address)
	return append(argv, env.Rest...), nil
}

// answers reports whether an SSH server greets from there within a second. A
// connection alone proves nothing: proxies on the way accept any.
func answers(address string, port int) bool {
	const wait = time.Second
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(address, strconv.Itoa(port)), wait)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	greeting := make([]byte, 4)
	_ = conn.SetReadDeadline(time.Now().Add(wait))
	_, err = io.ReadFull(conn, greeting)
	return err == nil && string(greeting) == "SSH-"
}

// proxyCommand has ssh run this program again as its byte stream. ssh hands the
// text to a shell after expanding "%", so both are quoted; a token travels in
// the environment.
func proxyCommand(env *cli.Env, id string, port int) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fault.New(fault.Internal, "find the own binary: %w", err)
	}
	words := []string{exe}
	g := env.Global
	for _, kv := range [][2]string{{"--socket", g.Socket}, {"--endpoint", g.Endpoint}, {"--config", g.Config}} {
		if kv[1] != "" {
			words = append(words, kv[0], kv[1])
		}
	}
	words = append(words, "ssh-stream", "--port", strconv.Itoa(port), id)
	for i, w := range words {
		words[i] = "'" + strings.ReplaceAll(strings.ReplaceAll(w, "%", "%%"), "'", `'\''`) + "'"
	}
	return strings.Join(words, " "), nil
}

// runSSH ends ssh with this program.
func runSSH(ctx context.Context, env *cli.Env, argv []string) error {
	path, err := exec.LookPath("ssh")
	if err != nil {
		return fault.New(fault.Unavailable, "ssh is not installed: %w", err).WithHint("apt-get install openssh-client")
	}
	cmd := exec.CommandContext(ctx, path, argv...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	cmd.Stdin, cmd.Stdout, cmd.Stderr = env.In, env.Out, env.Err
	if t := env.Global.Token; t != "" {
		cmd.Env = append(os.Environ(), "AGENTLAB_TOKEN="+t)
	}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if exit.ExitCode() < 0 { // by a signal
			return &exitError{code: exitSSH}
		}
		return &exitError{code: exit.ExitCode()}
	}
	if err != nil {
		return fmt.Errorf("run ssh: %w", err)
	}
	return nil
}
