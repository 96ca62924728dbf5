package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/client"
)

func completionCommand() cli.Command {
	return cli.Command{
		Name: "completion", Args: "SHELL", Synopsis: "print the script that makes a shell complete",
		MinArgs: 1, MaxArgs: 1,
		Help: `
Prints a script for bash, zsh or fish; its first lines say where it belongs. The
shell then asks this program for commands, flags and their values, and for the
names of sandboxes, jobs, operations, plugins and profiles, which the daemon has
a quarter of a second to tell.`,
		Answers: []cli.Answer{cli.AnswerOf[shellScript]("completion")},
		Run: func(_ context.Context, env *cli.Env, args []string) error {
			text, err := app().Script(args[0])
			if err != nil {
				return err
			}
			return show(env, shellScript{args[0], text}, func(w io.Writer) { fmt.Fprint(w, text) })
		},
	}
}

type shellScript struct {
	Shell  string `json:"shell"`
	Script string `json:"script"`
}

// completeCommand is what the scripts call.
func completeCommand() cli.Command {
	return cli.Command{
		Name: "complete", Args: "SHELL -- [WORD…]", Synopsis: "what could stand at the cursor", MinArgs: 1, MaxArgs: 1,
		Rest: true, Hidden: true,
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			ctx, cancel := context.WithTimeout(ctx, namesWithin)
			defer cancel()
			app().Suggest(ctx, &cli.Env{}, args[0], env.Rest, env.Out)
			return nil
		},
	}
}

// namesWithin is how long a person at the tab key waits for the daemon.
const namesWithin = 250 * time.Millisecond

// kinds are the words of usage lines and flags that can be completed.
func kinds() map[string]cli.Kind {
	return map[string]cli.Kind{
		"sandbox":    named(sandboxNames),
		"job":        named(jobNames),
		"operation":  named(operationNames),
		"plugin":     named(pluginNames),
		"crash":      named(crashNames),
		"profile":    named(profileNames),
		"template":   named(templateNames),
		"variant":    cli.Words("fast", "cloud"),
		"path":       named(artifactNames),
		"type":       cli.Words(eventWords()...),
		"mode":       cli.Words("default", "dangerous"),
		"shell":      cli.Words(cli.Shells...),
		"file":       cli.Files,
		"binary":     cli.Files,
		"kind":       cli.Words(pluginKinds()...),
		"level":      cli.Words("1", "2", "3"),
		"check":      cli.Words(checkIDs()...),
		"setting":    cli.Words(settingNames()...),
		"format":     cli.Words("json", "junit"),
		"directory":  cli.Directories,
		"repository": cli.Directories,
	}
}

// named asks the daemon. One that is away, slow or says no has no names to tell.
func named(ask func(ctx context.Context, c *client.Client, args []string) ([]cli.Candidate, error)) cli.Kind {
	return func(ctx context.Context, env *cli.Env, args []string) []cli.Candidate {
		c, err := connect(env)
		if err != nil {
			return nil
		}
		defer c.Close()
		found, err := ask(ctx, c, args)
		if err != nil {
			return nil
		}
		for i := range found {
			found[i].About = oneLine(found[i].About)
		}
		return found
	}
}

// newest is how many jobs and operations are worth offering.
const newest = 50

func sandboxNames(ctx context.Context, c *client.Client, _ []string) (out []cli.Candidate, err error) {
	list, err := c.Sandboxes(ctx, client.SandboxQuery{})
	for _, s := range list {
		about := words(s.State, s.Profile)
		out = append(out, cli.Candidate{Text: s.Name, About: words(vmid(s.VMID), about)})
		if s.VMID != 0 {
			out = append(out, cli.Candidate{Text: vmid(s.VMID), About: words(s.Name, about)})
		}
	}
	return out, err
}

func jobNames(ctx context.Context, c *client.Client, _ []string) (out []cli.Candidate, err error) {
	list, err := c.Jobs(ctx, client.JobQuery{Limit: newest})
	for _, j := range list {
		out = append(out, cli.Candidate{Text: j.ID, About: words(j.State, clip(j.Task, 40))})
	}
	return out, err
}

func operationNames(ctx context.Context, c *client.Client, _ []string) (out []cli.Candidate, err error) {
	list, err := c.Operations(ctx, client.OperationQuery{Limit: newest})
	for _, o := range list {
		out = append(out, cli.Candidate{Text: o.ID, About: words(o.State, o.Kind, cmp.Or(o.JobID, o.SandboxID))})
	}
	return out, err
}

func pluginNames(ctx context.Context, c *client.Client, _ []string) (out []cli.Candidate, err error) {
	list, err := c.Plugins(ctx)
	for _, p := range list {
		out = append(out, cli.Candidate{Text: p.Name, About: words(p.Kind, p.State)})
	}
	return out, err
}

func crashNames(ctx context.Context, c *client.Client, args []string) (out []cli.Candidate, err error) {
	if len(args) == 0 {
		return nil, nil
	}
	p, err := c.Plugin(ctx, args[0])
	for _, crash := range p.Crashes {
		out = append(out, cli.Candidate{Text: crash.ID, About: words(timeText(&crash.At), crash.Reason)})
	}
	return out, err
}

func profileNames(ctx context.Context, c *client.Client, _ []string) (out []cli.Candidate, err error) {
	list, err := c.Profiles(ctx)
	for _, p := range list.Items {
		out = append(out, cli.Candidate{Text: p.Name, About: p.Template})
	}
	return out, err
}

// artifactNames are the paths of the job named before them.
func artifactNames(ctx context.Context, c *client.Client, args []string) (out []cli.Candidate, err error) {
	if len(args) == 0 {
		return nil, nil
	}
	list, err := c.Artifacts(ctx, args[0])
	for _, a := range list {
		out = append(out, cli.Candidate{Text: a.Path, About: bytesText(a.Size)})
	}
	return out, err
}

func words(parts ...string) string {
	return strings.Join(strings.Fields(strings.Join(parts, " ")), " ")
}
