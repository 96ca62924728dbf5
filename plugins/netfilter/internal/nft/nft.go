package nft

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/netfilter/internal/ruleset"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Deadline bounds one run of nft. A thousand sandboxes take well under a second.
const Deadline = 10 * time.Second

// maxOutput bounds what is read of one listing.
const maxOutput = 64 << 20

// Tool is the nft program at Path.
type Tool struct{ Path string }

// Apply runs script as one transaction: all of it is in force afterwards, or
// nothing of it. Scripts are made for what Read has given: where that has
// changed since, it is fault.Conflict.
func (t Tool) Apply(ctx context.Context, script string) error {
	_, err := t.run(ctx, script, "-f", "-")
	var missing *fault.Error
	if errors.As(err, &missing) && missing.Class == fault.NotFound {
		missing.Class = fault.Conflict
		return missing.WithHint("%s; if that does not help, this kernel lacks an nftables module", changedHint)
	}
	return err
}

// Supports reports whether this kernel takes the script. Nothing is changed.
func (t Tool) Supports(ctx context.Context, script string) (bool, error) {
	_, err := t.run(ctx, script, "-c", "-f", "-")
	if errors.Is(err, fault.Unsupported) {
		return false, nil
	}
	return err == nil, err
}

// Read lists our tables. A table that is not there is left out.
func (t Tool) Read(ctx context.Context) ([]ruleset.Table, error) {
	var out []ruleset.Table
	for _, family := range []string{"bridge", "inet"} {
		// Numeric protocols: their names need /etc/protocols.
		listing, err := t.run(ctx, "", "-j", "--numeric-protocol", "list", "table", family, ruleset.Name)
		if errors.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		table, err := decode(listing)
		if err != nil {
			return nil, fault.New(fault.Internal, "read nft listing of table %s %s: %w", family, ruleset.Name, err)
		}
		out = append(out, table)
	}
	return out, nil
}

// Version gives what nft says about itself: "1.0.6".
func (t Tool) Version(ctx context.Context) (string, error) {
	out, err := t.run(ctx, "", "--version")
	if err != nil {
		return "", err
	}
	text := strings.TrimPrefix(string(out), "nftables v")
	text, _, _ = strings.Cut(text, " ")
	return strings.TrimSpace(text), nil
}

func (t Tool) run(ctx context.Context, stdin string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, Deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, t.Path, args...)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if stdin != "" {
		script, err := finished(stdin)
		if err != nil {
			return nil, fault.New(fault.Internal, "hand nft its script: %w", err)
		}
		defer func() { _ = script.Close() }()
		cmd.Stdin = script
	}
	cmd.WaitDelay = time.Second
	stdout, stderr := &capped{limit: maxOutput}, &capped{limit: 64 << 10}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	if err == nil {
		if stdout.cut {
			return nil, fault.New(fault.Exhausted, "nft listing is larger than %d bytes", maxOutput)
		}
		return stdout.Bytes(), nil
	}
	return nil, t.classify(ctx, err, stderr.String(), args)
}

// finished gives a file without a name that has all of the script before nft
// begins. Of a pipe nft would take the part that we had written when we were
// killed for the whole.
func finished(script string) (*os.File, error) {
	fd, err := unix.MemfdCreate("nft-script", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "nft-script")
	if _, err = f.WriteString(script); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// classify turns a failed run into a classified error. The errno texts are the
// C library's, hence LC_ALL=C.
func (t Tool) classify(ctx context.Context, err error, stderr string, args []string) error {
	f := &fault.Error{
		Class: fault.Internal, Message: "nft refused the request", Err: err,
		Command: t.Path + " " + strings.Join(args, " "), Stderr: stderr,
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		f.Class, f.Message, f.Err = fault.Timeout, "nft did not end in time", ctx.Err()
		if errors.Is(ctx.Err(), context.Canceled) {
			f.Class, f.Message = fault.Unavailable, "nft was cancelled"
		}
		return f
	case !errors.As(err, &exit):
		f.Class, f.Message = fault.Precondition, "nft cannot be started"
		f.Hint = "install nftables, or set nft_binary"
		return f
	}
	f.ExitCode = exit.ExitCode()
	if what := complaint(stderr); what != "" {
		f.Message, f.Stderr = "nft refused the request: "+what, ""
	}
	for _, c := range classes {
		if strings.Contains(stderr, c.text) {
			f.Class, f.Hint = c.class, c.hint
			break
		}
	}
	return f
}

// complaint is nft's first error and the statement that it is about, which the
// next line repeats above a line of carets; "" when there is none.
func complaint(stderr string) string {
	_, rest, ok := strings.Cut(stderr, "Error: ")
	if !ok {
		return ""
	}
	what, rest, _ := strings.Cut(rest, "\n")
	statement, _, _ := strings.Cut(rest, "\n")
	if statement = strings.TrimSpace(statement); statement != "" {
		what += ": " + statement
	}
	return what
}

const changedHint = "something else changed the agentlab tables, try again"

var classes = []struct {
	text  string
	class fault.Class
	hint  string
}{
	{"Operation not permitted", fault.Denied, "the network plugin needs CAP_NET_ADMIN"},
	{"Operation not supported", fault.Unsupported, "this kernel lacks an nftables module"},
	{"Protocol not supported", fault.Unsupported, "this kernel lacks an nftables module"},
	{"Protocol error", fault.Unsupported, "this kernel lacks an nftables module"},
	{"No such file or directory", fault.NotFound, ""},
	{"File exists", fault.Conflict, changedHint},
	{"Device or resource busy", fault.Conflict, changedHint},
	{"Cannot allocate memory", fault.Exhausted, ""},
	{"No buffer space available", fault.Exhausted, ""},
}

// capped keeps the first limit bytes and swallows the rest.
type capped struct {
	bytes.Buffer
	limit int
	cut   bool
}

func (c *capped) Write(p []byte) (int, error) {
	if room := c.limit - c.Len(); len(p) > room {
		c.cut = true
		c.Buffer.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return c.Buffer.Write(p)
}
