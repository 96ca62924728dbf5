package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Effect is one change that really happened. A call that found everything as
// it should be makes none.
type Effect struct {
	Seq     uint64    `json:"seq"` // 1, 2, 3, … without gaps
	Time    time.Time `json:"time"`
	Op      string    `json:"op"`      // "vm.create", "network.attach"
	Subject string    `json:"subject"` // VMID, sandbox id, host port
	Owner   string    `json:"owner,omitempty"`
	Detail  string    `json:"detail,omitempty"`
	Broken  string    `json:"broken,omitempty"` // rule of the contract that the caller broke
	PID     int       `json:"pid"`              // of the plugin
}

// Effects reads back every change so far, oldest first.
func (w *World) Effects(ctx context.Context) ([]Effect, error) {
	release, err := w.settle(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	content, err := os.ReadFile(filepath.Join(w.dir, effectsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Unavailable, "read the effects: %w", err)
	}
	var out []Effect
	for line := range bytes.Lines(content) {
		var e Effect
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fault.New(fault.Internal, "read the effects: %w", err)
		}
		out = append(out, e)
	}
	return out, nil
}

// Seq is the number of the newest effect, 0 before the first.
func (w *World) Seq(ctx context.Context) (uint64, error) {
	release, err := w.settle(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	return w.lastSeq()
}

// tailSize holds the last line of the log: an Effect is far smaller.
const tailSize = 64 << 10

// lastSeq reads the number in the log's last whole line and cuts off what a
// kill left of a line after it. The lock is held.
func (w *World) lastSeq() (uint64, error) {
	f, err := os.OpenFile(filepath.Join(w.dir, effectsFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 0, fault.New(fault.Unavailable, "read the effects: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, fault.New(fault.Unavailable, "read the effects: %w", err)
	}
	start := max(0, info.Size()-tailSize)
	tail := make([]byte, info.Size()-start)
	if _, err := f.ReadAt(tail, start); err != nil {
		return 0, fault.New(fault.Unavailable, "read the effects: %w", err)
	}
	whole := tail[:bytes.LastIndexByte(tail, '\n')+1]
	if len(whole) < len(tail) {
		if err := f.Truncate(start + int64(len(whole))); err != nil {
			return 0, fault.New(fault.Unavailable, "repair the effects: %w", err)
		}
	}
	if len(whole) == 0 {
		return 0, nil
	}
	line := whole[bytes.LastIndexByte(whole[:len(whole)-1], '\n')+1:]
	var e Effect
	if err := json.Unmarshal(line, &e); err != nil {
		return 0, fault.New(fault.Internal, "read the effects: %w", err)
	}
	return e.Seq, nil
}

func (w *World) appendEffect(e Effect) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fault.New(fault.Internal, "encode the effect: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(w.dir, effectsFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fault.New(fault.Unavailable, "write the effects: %w", err)
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		return fault.New(fault.Unavailable, "write the effects: %w", err)
	}
	return nil
}
