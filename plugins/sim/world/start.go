package world

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/agentlab/agentlab/sdk/fault"
)

// StartFile is what a plugin reads before it has a configuration, and so knows
// of no world: {"do": ACTION} beside its own binary. Tests give the plugin that
// is to misbehave a copy of the binary in a folder of its own.
const StartFile = "misbehave.json"

// What a plugin does instead of coming up.
const (
	ExitEarly      Action = "exit-early"      // before its line
	ExitLate       Action = "exit-late"       // after a line that is right
	Silent         Action = "silent"          // says nothing, and stays
	Mute           Action = "mute"            // a line that is right, and no answer to what connects
	Chatter        Action = "chatter"         // talks where its line should be
	EndlessLine    Action = "endless-line"    // a line that does not end
	WrongVersion   Action = "wrong-version"   // a line of another protocol
	BadCertificate Action = "bad-certificate" // a line whose certificate is garbage
)

type startWish struct {
	Do Action `json:"do"`
}

// AskAtStart has the binaries in dir misbehave when they start; "" ends it.
func AskAtStart(dir string, do Action) error {
	path := filepath.Join(dir, StartFile)
	if do == "" {
		return os.Remove(path)
	}
	content, err := json.Marshal(startWish{do})
	if err != nil {
		return fault.New(fault.Internal, "encode the wish: %w", err)
	}
	return os.WriteFile(path, content, 0o600)
}

// AskedAtStart is what the binaries in dir are to do, "" for nothing.
func AskedAtStart(dir string) (Action, error) {
	raw, err := os.ReadFile(filepath.Join(dir, StartFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	var wish startWish
	if err == nil {
		err = json.Unmarshal(raw, &wish)
	}
	return wish.Do, err
}
