package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/cmd/agentlab/internal/cli"
	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/client"
	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/sdk/fault"
)

func profileCheckCommand() cli.Command {
	return cli.Command{
		Name: "profile check", Args: "[PROFILE|FILE…]", Synopsis: "find what is wrong with profiles, all at once", MinArgs: 0, MaxArgs: -1,
		Help: `
Checks profiles and tells all that is wrong. A FILE, which has a slash in its
name or ends in .hcl, is read here and needs no daemon. About a PROFILE by name
the daemon is asked, also whether the template, the agent in it, the secrets
bundle and the network policy are there. Without arguments all profiles of the
daemon are checked.

The exit code is 2 when something is wrong, 6 when only a plugin could not be
asked.`,
		Answers: []cli.Answer{listing[api.ProfileCheck]("profile-checks")},
		Run: func(ctx context.Context, env *cli.Env, args []string) error {
			k := profileCheck{env: env}
			if err := k.run(ctx, args); err != nil {
				return err
			}
			if err := show(env, listed("profile-checks", k.checked), k.print); err != nil {
				return err
			}
			return k.verdict()
		},
	}
}

// profileCheck collects what is wrong with several profiles.
type profileCheck struct {
	env     *cli.Env
	c       *client.Client
	checked []api.ProfileCheck
}

func (k *profileCheck) run(ctx context.Context, args []string) (err error) {
	files := slices.DeleteFunc(slices.Clone(args), func(a string) bool { return !isProfileFile(a) })
	names := slices.DeleteFunc(slices.Clone(args), isProfileFile)
	for _, file := range files {
		k.file(file)
	}
	if len(names) == 0 && len(files) > 0 {
		return nil
	}
	if k.c, err = connect(k.env); err != nil {
		return err
	}
	defer k.c.Close()
	if len(args) == 0 {
		if names, err = k.all(ctx); err != nil {
			return err
		}
	}
	for _, name := range names {
		one, err := k.c.CheckProfile(ctx, name)
		if err != nil {
			return fmt.Errorf("check profile %s: %w", name, err)
		}
		k.checked = append(k.checked, one)
	}
	return nil
}

func isProfileFile(arg string) bool {
	return strings.ContainsRune(arg, filepath.Separator) || strings.HasSuffix(arg, ".hcl")
}

// all names the daemon's usable profiles, and notes what it skipped.
func (k *profileCheck) all(ctx context.Context) (names []string, err error) {
	p, err := k.c.Profiles(ctx)
	if err != nil {
		return nil, err
	}
	if len(p.Problems) > 0 {
		k.checked = append(k.checked, api.ProfileCheck{Name: "profile files", Findings: lineFindings("profiles", p.Problems)})
	}
	if len(p.Items) == 0 {
		none := api.Finding{Source: "profiles", ID: "none", Level: api.LevelWarning, Message: "the daemon has no usable profile"}
		k.checked = append(k.checked, api.ProfileCheck{Name: "profiles", Findings: []api.Finding{none}})
	}
	for _, one := range p.Items {
		names = append(names, one.Name)
	}
	return names, nil
}

// file checks one file, or all in a directory.
func (k *profileCheck) file(path string) {
	st, err := os.Stat(path)
	if err != nil {
		text := err.Error()
		if errors.Is(err, fs.ErrNotExist) {
			text = path + ": no such file"
		}
		k.checked = append(k.checked, api.ProfileCheck{Name: path, Findings: lineFindings("file "+path, []string{text})})
		return
	}
	load := func(path string) (map[string]config.Profile, config.Diagnostics) {
		return config.LoadProfileFiles(path)
	}
	if st.IsDir() {
		load = config.LoadProfiles
	}
	found, diags := load(path)
	one := api.ProfileCheck{Name: path, Findings: []api.Finding{}}
	for _, p := range diags.Problems() {
		f := api.Finding{Source: "file " + path, ID: string(fault.Invalid), Level: p.Severity, Message: p.Message, Fix: p.Hint}
		if p.File != "" {
			f.Message = p.Place() + ": " + p.Message
		}
		one.Findings = append(one.Findings, f)
	}
	if len(found) == 0 && !diags.HasErrors() {
		one.Findings = append(one.Findings, lineFindings("file "+path, []string{path + ": there is no profile block in it"})...)
	}
	k.checked = append(k.checked, one)
	for _, name := range slices.Sorted(maps.Keys(found)) {
		k.checked = append(k.checked, api.ProfileCheck{Name: name, Findings: []api.Finding{}})
	}
}

// lineFindings turns lines of diagnostics into findings.
func lineFindings(source string, lines []string) []api.Finding {
	out := []api.Finding{}
	for _, line := range lines {
		f := api.Finding{Source: source, ID: string(fault.Invalid), Level: api.LevelError, Message: line}
		if strings.Contains(line, ": "+config.WarningMark) {
			f.Level = api.LevelWarning
		}
		out = append(out, f)
	}
	return out
}

func (k *profileCheck) print(w io.Writer) {
	for _, one := range k.checked {
		level := worst(one.Findings)
		state := map[string]string{api.LevelOK: "ok", api.LevelWarning: "warning", api.LevelError: "wrong"}[level]
		fmt.Fprintf(w, "%s %s\n", coloured(w, levelColours[level], fmt.Sprintf("%-8s", state)), oneLine(one.Name))
		for _, f := range one.Findings {
			fmt.Fprintf(w, "         %s\n", oneLine(f.Message))
			if f.Fix != "" {
				fmt.Fprintf(w, "           hint: %s\n", oneLine(f.Fix))
			}
		}
	}
}

// verdict is an error when something is wrong: of class Invalid, unless all that
// is wrong may pass by itself.
func (k *profileCheck) verdict() error {
	wrong, class := 0, fault.Class("")
	for _, one := range k.checked {
		for _, f := range one.Findings {
			if f.Level != api.LevelError {
				continue
			}
			wrong++
			if id := fault.Class(f.ID); class == "" || class == fault.Unavailable || class == fault.Timeout {
				class = id
			}
		}
	}
	switch {
	case wrong == 0:
		return nil
	case class != fault.Unavailable && class != fault.Timeout:
		class = fault.Invalid
	}
	return fault.New(class, "profiles have %s", several(wrong, "problem"))
}
