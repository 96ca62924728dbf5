package settle

import (
	"os"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/sdk/fault"
)

// sessionPrograms are where distributions have what OpenSSH since 9.8 starts for each
// connection.
var sessionPrograms = []string{
	"/usr/lib/openssh/sshd-session", "/usr/libexec/openssh/sshd-session",
	"/usr/libexec/sshd-session", "/usr/lib/ssh/sshd-session",
}

// readsHostKey refuses a guest whose sshd hands the host key that it began with to
// each connection, and does not read it again: all copies would have that one.
func readsHostKey(l layout.Layout) error {
	for _, path := range sessionPrograms {
		if _, err := os.Stat(l.At(path)); err == nil {
			return fault.New(fault.Precondition, "sshd of this image would give all copies one host key: it has %s", path).
				WithHint("build the image with OpenSSH before 9.8, or let its VMs boot")
		}
	}
	return nil
}
