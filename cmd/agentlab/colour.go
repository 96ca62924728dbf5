package main

import (
	"io"
	"os"
	"strings"
)

// Colours of states and errors.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
)

var stateColours = map[string]string{
	"failed": red, "timeout": red, "quarantined": red,
	"ready": green, "completed": green, "done": green,
	"running": yellow, "degraded": yellow, "backoff": yellow,
}

// isDumb reports whether the terminal, if there is one, only takes lines.
func isDumb() bool { return os.Getenv("TERM") == "dumb" }

// coloured gives text a colour where a person looks at w and wants any.
func coloured(w io.Writer, colour, text string) string {
	if colour == "" || !isTerminal(w) || isDumb() || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

// stateText is a state in its colour.
func stateText(w io.Writer, state string) string {
	return coloured(w, stateColours[strings.ToLower(state)], state)
}
