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

// Send uploads one file under the name as, from the beginning again when the
// connection breaks. limit is its greatest size in bytes, 0 for none.
// fault.Exhausted: it is too large.
func Send(ctx context.Context, root *os.Root, path, as string, limit int64, put Put) error {
	err := guestclient.Retry(ctx, nil, func(ctx context.Context) error {
		f, size, err := open(root, path)
		if err != nil {
			return fault.New(fault.Precondition, "%w", err)
		}
		defer f.Close()
		if limit > 0 && size > limit {
			return fault.New(fault.Exhausted, "it has %d bytes, more than the %d allowed", size, limit)
		}
		_, err = put(ctx, as, io.LimitReader(f, size), size)
		return err
	})
	if err != nil {
		return fmt.Errorf("upload %s: %w", as, err)
	}
	return nil
}
