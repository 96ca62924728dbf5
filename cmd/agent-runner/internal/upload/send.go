package upload

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/guestclient"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Put stores one artifact on the host.
type Put func(ctx context.Context, path string, body io.Reader, size int64) (guestapi.UploadReply, error)

// Sender uploads files of one directory.
type Sender struct {
	Root  *os.Root
	Limit int64 // greatest size of a file in bytes, 0 for none
	Put   Put
}

// Send uploads one file under the name as, from the beginning again when the
// connection breaks. fault.Exhausted: it is too large.
func (s Sender) Send(ctx context.Context, path, as string) error {
	err := guestclient.Retry(ctx, nil, func(ctx context.Context) error {
		f, size, err := open(s.Root, path)
		if err != nil {
			return fault.New(fault.Precondition, "%w", err)
		}
		defer f.Close()
		if s.Limit > 0 && size > s.Limit {
			return fault.New(fault.Exhausted, "it has %s, more than the %s allowed (artifact_max_bytes in the daemon's configuration)", guestapi.SizeText(size), guestapi.SizeText(s.Limit))
		}
		_, err = s.Put(ctx, as, io.LimitReader(f, size), size)
		return err
	})
	if err != nil {
		return fmt.Errorf("upload %s: %w", as, err)
	}
	return nil
}
