package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/config"
)

// keySchema is what config schema answers.
type keySchema struct {
	Config  []config.Field `json:"config"`
	Profile []config.Field `json:"profile"`
}

func configSchemaCommand() cli.Command {
	return cli.Command{
		Name: "config schema", Synopsis: "list every key of the configuration and of profiles",
		Help: `
Lists the keys and blocks of the daemon's configuration and of profiles, with
type, default and meaning, as this version reads them. The keys of a plugin's
config block are the plugin's own.`,
		Answers: []cli.Answer{cli.AnswerOf[keySchema]("config-schema")},
		Run: func(_ context.Context, env *cli.Env, _ []string) error {
			v := keySchema{config.Schema(), config.ProfileSchema()}
			return show(env, v, func(w io.Writer) {
				fmt.Fprintln(w, "# "+config.DefaultFile)
				printFields(w, config.Schema(), 0)
				fmt.Fprintln(w, "\n# profiles")
				printFields(w, config.ProfileSchema(), 0)
			})
		},
	}
}

// printFields writes keys before blocks, as they stand in a file.
func printFields(w io.Writer, fields []config.Field, depth int) {
	indent := strings.Repeat("  ", depth)
	for _, f := range keysFirst(fields) {
		if f.Type != "" {
			fmt.Fprintf(w, "%s%s (%s)\n%s    %s\n", indent, f.Name, strings.Join(traits(f), ", "), indent, f.Help)
			continue
		}
		fmt.Fprintf(w, "%s%s {\n%s    %s\n", indent, head(f), indent, f.Help)
		printFields(w, f.Fields, depth+1)
		fmt.Fprintf(w, "%s}\n", indent)
	}
}

func keysFirst(fields []config.Field) []config.Field {
	var keys, blocks []config.Field
	for _, f := range fields {
		if f.Type != "" {
			keys = append(keys, f)
		} else {
			blocks = append(blocks, f)
		}
	}
	return append(keys, blocks...)
}

// head is how a block begins.
func head(f config.Field) string {
	switch f.Labels {
	case 1:
		return f.Name + ` "NAME"`
	case 2:
		return f.Name + ` "KIND" "NAME"`
	}
	return f.Name
}

// traits are what is to be known of a key beside its meaning.
func traits(f config.Field) []string {
	out := []string{string(f.Type)}
	if f.Default != "" {
		out = append(out, "default "+f.Default)
	}
	if f.NoEffect {
		out = append(out, "no effect in this version")
	}
	if f.Restart {
		out = append(out, "needs a restart")
	}
	return out
}

// schemaMarkdown writes a table of the keys, then each block with its own.
func schemaMarkdown(w io.Writer, fields []config.Field) {
	rows := ""
	for _, f := range keysFirst(fields) {
		if f.Type == "" && !f.Open {
			continue
		}
		if f.Open {
			f.Type = "block"
		}
		def, text := "", strings.ReplaceAll(f.Help, "|", `\|`)
		if f.Default != "" {
			def = "`" + f.Default + "`"
		}
		if f.NoEffect {
			text += " *No effect in this version.*"
		}
		if f.Restart {
			text += " *Needs a restart.*"
		}
		rows += fmt.Sprintf("| `%s` | %s | %s | %s |\n", f.Name, f.Type, def, text)
	}
	if rows != "" {
		fmt.Fprintf(w, "\n| key | type | default | |\n|---|---|---|---|\n%s", rows)
	}
	for _, f := range fields {
		if f.Type == "" && !f.Open {
			fmt.Fprintf(w, "\n### `%s`\n\n%s\n", head(f), f.Help)
			schemaMarkdown(w, f.Fields)
		}
	}
}
