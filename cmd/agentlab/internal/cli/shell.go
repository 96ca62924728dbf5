package cli

import (
	"context"
	"embed"
	"fmt"
	"io"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

//go:embed shell
var shells embed.FS

// Shells are those that Script knows.
var Shells = []string{"bash", "zsh", "fish"}

// Script is what a shell has to read to complete this program's command lines.
func (a *App) Script(shell string) (string, error) {
	text, err := shells.ReadFile("shell/complete." + shell)
	if err != nil {
		return "", fault.New(fault.Invalid, "there is no completion for %q", shell).WithHint("there is one for: %s", strings.Join(Shells, ", "))
	}
	return strings.ReplaceAll(string(text), "PROGRAM", a.Name), nil
}

// Suggest answers a shell's script: a candidate on each line, behind a tab what
// it is, or ":file" and ":directory" for what the shell finds itself.
func (a *App) Suggest(ctx context.Context, env *Env, shell string, words []string, w io.Writer) {
	bash := shell == "bash"
	prefix := ""
	if bash {
		if words = joined(words); len(words) > 0 {
			last := words[len(words)-1]
			prefix = last[:strings.LastIndexByte(last, '=')+1]
		}
	}
	for _, c := range a.Complete(ctx, env, words) {
		text := strings.TrimPrefix(c.Text, prefix)
		if c.About != "" && !bash {
			text += "\t" + c.About
		}
		fmt.Fprintln(w, text)
	}
}

// joined undoes that bash takes "--flag=value" for three words; of the last one
// it completes what stands behind "=".
func joined(words []string) (out []string) {
	glue := false
	for _, w := range words {
		last := len(out) - 1
		switch {
		case w == "=" && last >= 0 && isFlag(out[last]) && !strings.Contains(out[last], "="):
			out[last] += w
			glue = true
			continue
		case glue:
			out[last] += w
		default:
			out = append(out, w)
		}
		glue = false
	}
	return out
}
