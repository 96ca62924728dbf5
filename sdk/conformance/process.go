package conformance

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/agentlab/agentlab/sdk/plugin"
)

// startTimeout is how long a plugin may take to the line of its handshake.
const startTimeout = 30 * time.Second

// process is a plugin that is started as a host in any language would start
// it, without what makes launch forgiving: what it prints and when it ends is
// seen as it is.
type process struct {
	cmd      *exec.Cmd
	dir      string
	lifeline io.Closer
	key      tls.Certificate // the host's, for mutual TLS
	line     string          // first line of standard output
	more     output          // standard output after it
	log      output          // standard error
	ended    chan struct{}
	conn     *grpc.ClientConn
}

// output keeps what a process prints.
type output struct {
	mu sync.Mutex
	// mu guards:
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.text.Len() < 1<<20 {
		o.text.Write(p)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// spawn starts the plugin and reads its first line.
func (b Binary) spawn(ctx context.Context) (*process, error) {
	dir, err := runDir()
	if err != nil {
		return nil, err
	}
	p := &process{dir: dir, ended: make(chan struct{})}
	cert, err := p.certificate()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p.cmd = exec.Command(b.Path)
	p.cmd.Dir = "/"
	p.cmd.Env = append(b.environment(),
		plugin.CookieKey+"="+plugin.CookieValue, fmt.Sprintf("PLUGIN_PROTOCOL_VERSIONS=%d", plugin.ProtocolVersion),
		"PLUGIN_UNIX_SOCKET_DIR="+dir, "PLUGIN_CLIENT_CERT="+cert, "PLUGIN_MIN_PORT=10000", "PLUGIN_MAX_PORT=25000",
	)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = &p.log
	p.cmd.WaitDelay = time.Second
	stdout, stdoutW := io.Pipe()
	p.cmd.Stdout = stdoutW
	if p.lifeline, err = p.cmd.StdinPipe(); err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", b.Path, err), os.RemoveAll(dir))
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // the state says how it ended
		_ = stdoutW.Close()
	}()
	if err := p.readLine(ctx, stdout); err != nil {
		p.end()
		return nil, err
	}
	return p, nil
}

// readLine waits for the first line and keeps the rest for later.
func (p *process) readLine(ctx context.Context, stdout io.Reader) error {
	first := make(chan string, 1)
	go func() {
		r := bufio.NewReader(stdout)
		line, _ := r.ReadString('\n')
		first <- line
		_, _ = io.Copy(&p.more, r)
	}()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case line := <-first:
		if !strings.HasSuffix(line, "\n") {
			<-p.ended
			return saw("it ended with %s before the line of its handshake; it printed %q", p.cmd.ProcessState, tail(line+p.log.String())).
				want("one line on standard output")
		}
		p.line = strings.TrimSuffix(line, "\n")
		return nil
	case <-ctx.Done():
		return saw("no line on standard output in %s; on standard error: %q", startTimeout, tail(p.log.String())).want("the line of the handshake")
	}
}

func tail(s string) string { return s[max(0, len(s)-400):] }

// address is what the line says, checked.
func (p *process) address() (socket string, cert []byte, err error) {
	want := fmt.Sprintf("1|%d|unix|<socket>|grpc|<certificate>", plugin.ProtocolVersion)
	parts := strings.Split(p.line, "|")
	if len(parts) < 6 || parts[0] != "1" || parts[1] != fmt.Sprint(plugin.ProtocolVersion) || parts[2] != "unix" || parts[4] != "grpc" {
		return "", nil, saw("the first line of standard output is %q", tail(p.line)).want("%s", want)
	}
	if cert, err = base64.RawStdEncoding.DecodeString(parts[5]); err != nil || len(cert) == 0 {
		return "", nil, saw("the certificate in the first line is %q", tail(parts[5])).want("DER in base64 without padding, of a certificate for localhost")
	}
	return parts[3], cert, nil
}

// dial connects with mutual TLS and makes sure that it works.
func (p *process) dial(ctx context.Context) error {
	socket, der, err := p.address()
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return saw("the certificate in the first line cannot be read: %v", err).want("DER of a certificate for localhost")
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	creds := credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{p.key}, RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12,
	})
	if p.conn, err = connect(socket, creds); err != nil {
		return err
	}
	if err := p.serving(ctx); err != nil {
		return saw("the first call by mutual TLS: %v", err).want("an answer of grpc.health.v1 for the service \"plugin\"")
	}
	return nil
}

func connect(socket string, creds credentials.TransportCredentials) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///"+socket, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(plugin.MaxMessage), grpc.MaxCallSendMsgSize(plugin.MaxMessage)),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", addr)
		}))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", socket, err)
	}
	return conn, nil
}

// stranger connects as somebody who does not have the host's key.
func stranger(socket string) []*grpc.ClientConn {
	var out []*grpc.ClientConn
	for _, creds := range []credentials.TransportCredentials{
		insecure.NewCredentials(), credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}), //nolint:gosec // it is to be refused
	} {
		if conn, err := connect(socket, creds); err == nil {
			out = append(out, conn)
		}
	}
	return out
}

// exits waits for the end.
func (p *process) exits(within time.Duration, what string) error {
	select {
	case <-p.ended:
		return nil
	case <-time.After(within):
		return saw("after %s it runs on", what).want("the end of the process within %s", within)
	}
}

// end ends the process whatever it does.
func (p *process) end() {
	if p.conn != nil {
		_ = p.conn.Close()
	}
	_ = p.lifeline.Close()
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
	_ = os.RemoveAll(p.dir)
}

// certificate makes the host's key and gives its certificate as PEM.
func (p *process) certificate() (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make key: %w", err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", fmt.Errorf("make certificate: %w", err)
	}
	p.key = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}
