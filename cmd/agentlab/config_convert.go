package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/core/config/convert"
	"github.com/agentlab/agentlab/sdk/fault"
)

// conversion is what config convert answers.
type conversion struct {
	Files    []converted      `json:"files" doc:"none when there is an error"`
	Problems []config.Problem `json:"problems"`
}

type converted struct {
	Source string       `json:"source"`
	Kind   convert.Kind `json:"kind" enum:"config,profile,part of a profile"`
	Target string       `json:"target,omitempty" doc:"where it was written"`
	HCL    string       `json:"hcl,omitempty" doc:"the text, when it was not written"`
}

type convertFlags struct {
	beside bool
	output string
	force  bool
}

func configConvertCommand() cli.Command {
	var flags convertFlags
	return cli.Command{
		Name: "config convert", Args: "FILE…", MinArgs: 1, MaxArgs: -1, Synopsis: "turn YAML configurations and profiles into HCL",
		Help: `
Turns the YAML form of the daemon's configuration and of profiles into HCL and
prints it. What a FILE is, its keys tell; "-" is standard input. Comments come
along. A key that belongs to a plugin goes to the plugin's block, which is made
for it: secrets_age_key_path becomes identity of "secrets-age".

The result has been loaded as the daemon would. A key that is not known, a value
that is not possible and whatever else is wrong is told with its line, and then
nothing is printed or written, of no file.

With -w each result is written beside its FILE, with the ending .hcl, which is
where the daemon looks for it; with --output into one directory.`,
		Answers: []cli.Answer{cli.AnswerOf[conversion]("config-convert")},
		Flags: func(fs *flag.FlagSet) {
			fs.BoolVar(&flags.beside, "w", false, "write X.hcl beside each X.yaml instead of printing")
			fs.StringVar(&flags.output, "output", "", "write into this `directory` instead of printing")
			fs.BoolVar(&flags.force, "force", false, "with -w or --output: replace files that are there")
		},
		Run: func(_ context.Context, env *cli.Env, args []string) error {
			if env.Global.Config != "" {
				_, err := daemonFile(env, nil, "config convert")
				return err
			}
			return runConvert(env, args, flags)
		},
	}
}

func runConvert(env *cli.Env, files []string, flags convertFlags) error {
	if flags.beside && flags.output != "" {
		return fault.New(fault.Invalid, "give -w or --output, not both")
	}
	var all []converted
	var problems []config.Problem
	for _, file := range files {
		src, err := readSource(env, file)
		if err != nil {
			return err
		}
		r, diags := convert.YAML(src, file)
		problems = append(problems, diags.Problems()...)
		all = append(all, converted{Source: file, Kind: r.Kind, HCL: string(r.HCL)})
	}
	wrong := count(problems, "error")
	if !env.Global.JSON {
		printProblems(env.Err, problems)
	}
	out := conversion{Files: []converted{}, Problems: append([]config.Problem{}, problems...)}
	if wrong > 0 {
		if err := show(env, out, func(io.Writer) {}); err != nil {
			return err
		}
		return fault.New(fault.Invalid, "nothing is converted: %s", several(wrong, "error"))
	}
	if flags.beside || flags.output != "" {
		if err := writeAll(all, flags); err != nil {
			return err
		}
	}
	out.Files = all
	return show(env, out, func(w io.Writer) { printConverted(w, all) })
}

// readSource reads a file, and at most a little more than a conversion takes.
func readSource(env *cli.Env, file string) ([]byte, error) {
	if file == "-" {
		src, err := io.ReadAll(io.LimitReader(env.In, 2<<20))
		if err != nil {
			return nil, fault.New(fault.Unavailable, "read standard input: %w", err)
		}
		return src, nil
	}
	src, err := os.ReadFile(file)
	switch {
	case filepath.Ext(file) == ".hcl":
		return nil, fault.New(fault.Invalid, "%s is HCL already", file).WithHint("agentlab config check looks for what is wrong in it")
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.NotFound, "there is no file %s", file)
	case err != nil:
		return nil, fault.New(fault.Denied, "read the file: %w", err)
	}
	return src, nil
}

// printConverted writes the texts, each below its file's name when there are
// several, or where they were written.
func printConverted(w io.Writer, all []converted) {
	for i, f := range all {
		switch {
		case f.Target != "":
			fmt.Fprintln(w, oneLine(f.Target))
			continue
		case len(all) > 1 && i > 0:
			fmt.Fprintf(w, "\n# ---- %s\n", oneLine(f.Source))
		case len(all) > 1:
			fmt.Fprintf(w, "# ---- %s\n", oneLine(f.Source))
		}
		fmt.Fprint(w, f.HCL)
	}
}

// writeAll decides about every file before it writes the first.
func writeAll(all []converted, flags convertFlags) error {
	targets := map[string]string{}
	for i := range all {
		f := &all[i]
		if f.Source == "-" {
			return fault.New(fault.Invalid, "what comes from standard input has no name to be written under")
		}
		if f.Kind == convert.Part {
			return fault.New(fault.Invalid, "%s is only a part of a profile", f.Source).
				WithHint("add name and template_vmid, or convert it without -w and --output and put it into a profile's block")
		}
		base := strings.TrimSuffix(strings.TrimSuffix(f.Source, ".yaml"), ".yml") + ".hcl"
		if flags.output != "" {
			base = filepath.Join(flags.output, filepath.Base(base))
		}
		if other, twice := targets[base]; twice {
			return fault.New(fault.Invalid, "%s and %s would both become %s", other, f.Source, base)
		}
		targets[base], f.Target = f.Source, base
		old, err := os.ReadFile(base)
		if err == nil && !flags.force && !bytes.Equal(old, []byte(f.HCL)) {
			return fault.New(fault.Exists, "%s is there already, and says something else", base).
				WithHint("--force replaces it")
		}
	}
	if flags.output != "" {
		if err := os.MkdirAll(flags.output, 0o755); err != nil {
			return fault.New(fault.Denied, "create %s: %w", flags.output, err)
		}
	}
	for i := range all {
		f := &all[i]
		mode := fs.FileMode(0o644)
		if f.Kind == convert.Config {
			mode = 0o600 // it may hold a token
		}
		if err := replaceFile(f.Target, []byte(f.HCL), mode); err != nil {
			return err
		}
		f.HCL = ""
	}
	return nil
}

// replaceFile leaves the old file or the new one, whatever happens.
func replaceFile(path string, content []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".agentlab-")
	if err != nil {
		return fault.New(fault.Denied, "write %s: %w", path, err)
	}
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(fault.New(fault.Denied, "write %s: %w", path, err), os.Remove(tmp.Name()))
	}
	return nil
}
