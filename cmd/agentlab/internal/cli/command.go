package cli

import (
	"context"
	"flag"
	"io"
)

// Command is one command of the program. A Command without Run is a group: its
// name is the beginning of other commands' names.
type Command struct {
	Name     string // words: "job run"
	Args     string // of the usage line: "JOB [PATH…]"; "" takes none
	Synopsis string // one line, no period
	Help     string // paragraphs for --help
	Flags    func(*flag.FlagSet)
	MinArgs  int
	MaxArgs  int  // -1: any number
	Rest     bool // words after "--" are a command line, kept apart in Env.Rest
	Hidden   bool
	Run      func(ctx context.Context, env *Env, args []string) error
}

// Global are the flags that every command takes.
type Global struct {
	Socket   string
	Endpoint string
	Token    string
	Config   string
	JSON     bool
	Timeout  Duration
}

func (g *Global) declare(fs *flag.FlagSet) {
	fs.StringVar(&g.Socket, "socket", "", "the daemon's Unix socket, a `file`")
	fs.StringVar(&g.Endpoint, "endpoint", "", "the daemon's `url` when it is on another machine")
	fs.StringVar(&g.Token, "token", "", "token for --endpoint (better in AGENTLAB_TOKEN)")
	fs.StringVar(&g.Config, "config", "", "client configuration `file`")
	fs.BoolVar(&g.JSON, "json", false, "print JSON for programs")
	fs.Var(&g.Timeout, "timeout", "longest wait for one answer of the daemon, a `duration` (default: 30s)")
}

// Env is what a command runs with.
type Env struct {
	Global Global
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
	Rest   []string // after "--", for commands with Rest
}

// App is the program.
type App struct {
	Name     string
	About    string // one line
	Version  string
	Notes    string // Markdown for the reference: what holds for all commands
	Commands []Command
	// Explain prints an error and returns the exit code.
	Explain func(env *Env, err error) int
}
