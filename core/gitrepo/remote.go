package gitrepo

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// remoteHints says what to do about what git says of a remote. The first whose
// word git has said is given.
var remoteHints = []struct {
	words []string
	hint  string
}{
	{
		[]string{
			"could not read Username", "could not read Password", "Authentication failed", "Permission denied",
			"error: 401", "error: 403", "Invalid username",
		},
		"put git.token, or git.ssh_private_key for an ssh URL, into the profile's secrets bundle",
	},
	{
		[]string{"Host key verification failed", "authenticity of host"},
		"put the line of ssh-keyscan HOST into git.known_hosts of the profile's secrets bundle",
	},
	{
		[]string{
			"Could not resolve", "resolve host", "Name or service not known", "Failed to connect", "connect to", "timed out",
			"Network is unreachable", "No route to host",
		},
		"check the address, and that the profile's network lets the sandbox reach it: mode nat, or allow its address and port",
	},
	{
		[]string{"not found", "does not appear to be a git repository", "does not exist", "not a git repository"},
		"check the URL; a private repository says so too, and needs git.token or git.ssh_private_key in the secrets bundle",
	},
	{[]string{"No space left"}, "give the profile a larger disk: resources.disk_gb"},
}

// remoteError names the remote, git's reason and what can be done.
func remoteError(action, remote string, err error) error {
	var e *fault.Error
	if !errors.As(err, &e) || e.Stderr == "" {
		return fault.New(fault.Unavailable, "%s %s: %w", action, shownURL(remote), err)
	}
	out := fault.New(fault.Unavailable, "%s %s: %s", action, shownURL(remote), reason(e.Stderr))
	for _, h := range remoteHints {
		if slices.ContainsFunc(h.words, func(w string) bool { return strings.Contains(e.Stderr, w) }) {
			return out.WithHint("%s", h.hint)
		}
	}
	return out
}

// reason is the line in which git, or the program it called, says what is wrong:
// the last lines are advice that fits every failure.
func reason(stderr string) string {
	first := ""
	for line := range strings.Lines(stderr) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "warning:") || strings.HasPrefix(line, "Warning:") {
			continue
		}
		if first == "" {
			first = line
		}
		if text, ok := strings.CutPrefix(line, "fatal: "); ok && !strings.HasPrefix(text, "Could not read from remote") {
			return text
		}
	}
	return first
}

// shownURL is the remote without a password.
func shownURL(remote string) string {
	u, err := url.Parse(remote)
	if err != nil || u.User == nil {
		return remote
	}
	return u.Redacted()
}
