package cli

import (
	"context"
	"flag"
	"io"
	"reflect"
)

// Command is one command of the program. A Command without Run is a group: its
// name is the beginning of other commands' names.
//
// The words of Args and the name in back quotes in a flag's usage say what kind
// of thing is meant. A kind that App.Kinds knows is completed.
type Command struct {
	Name     string // words: "job run"
	Heading  string // in the help; "" takes that of the first word's group
	ShortFor string // the name of the command that this is a short form of
	Args     string // of the usage line: "JOB [PATH…]"; "" takes none
	Synopsis string // one line, no period
	Help     string // paragraphs for --help
	Flags    func(*flag.FlagSet)
	MinArgs  int
	MaxArgs  int  // -1: any number
	Rest     bool // words after "--" are a command line, kept apart in Env.Rest
	Hidden   bool
	Answers  []Answer // what --json prints, one kind or another
	Run      func(ctx context.Context, env *Env, args []string) error
}

// Answer is a kind of JSON that a command prints.
type Answer struct {
	Name  string // of its schema: "job" is docs/schema/job.json
	Type  reflect.Type
	Lines bool // one value on each line
}

// AnswerOf is the answer that is a T.
func AnswerOf[T any](name string) Answer { return Answer{Name: name, Type: reflect.TypeFor[T]()} }

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
	Headings []string // of the help, in order
	Notes    string   // Markdown paragraphs for the reference: what holds for all commands
	Codes    []Code
	Commands []Command
	Later    []string // commands, and flags with their dashes, that this version does not have yet
	// Kinds complete the arguments and flags of their kind.
	Kinds map[string]Kind
	// Explain prints an error and returns the exit code.
	Explain func(env *Env, err error) int
}

// Code is an exit code and what it means.
type Code struct {
	Code    int
	Meaning string
}
