package main

import (
	"os"
	"path"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/sdk/fault"
)

// noRepository refuses files that git would take for a repository, or that
// would become part of one that is there. What a repository's configuration
// names is run by as little as "git status" in the directory.
func noRepository(root *os.Root, list []api.Artifact) error {
	var bad []string
	for _, a := range list {
		if slices.ContainsFunc(strings.FieldsFunc(a.Path, isSlash), isDotGit) {
			bad = append(bad, a.Path)
		}
	}
	there := entries(list)
	for dir := range there {
		has := func(name string) bool {
			_, err := root.Lstat(path.Join(dir, name))
			return there[dir][strings.ToLower(name)] || err == nil
		}
		// A linked worktree has its objects and refs where commondir says.
		if has("HEAD") && (has("commondir") || has("objects") && has("refs")) {
			bad = append(bad, path.Join(dir, "HEAD"))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	slices.Sort(bad)
	names, more := slices.Compact(bad), ""
	if most := 5; len(names) > most {
		names, more = names[:most], ", …"
	}
	return fault.New(fault.Denied, "git would take what is at %s%s for a repository and run what its configuration names; nothing was copied", strings.Join(names, ", "), more).
		WithHint("name the files that you want, or add --archive; unpacking that and then using git there has the same danger")
}

// entries gives the names in each directory of the list, in lower case.
func entries(list []api.Artifact) map[string]map[string]bool {
	there := map[string]map[string]bool{}
	for _, a := range list {
		for p := path.Clean(a.Path); p != "."; p = path.Dir(p) {
			dir := path.Dir(p)
			if there[dir] == nil {
				there[dir] = map[string]bool{}
			}
			there[dir][strings.ToLower(path.Base(p))] = true
		}
	}
	return there
}

func isSlash(r rune) bool { return r == '/' || r == '\\' }

// isDotGit reports whether some file system takes the name for ".git": HFS+
// passes over invisible characters, NTFS over dots and spaces at the end and
// what follows a colon, and has a short name of its own.
func isDotGit(name string) bool {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	name, _, _ = strings.Cut(name, ":")
	name = strings.TrimRight(name, " .")
	return strings.EqualFold(name, ".git") || strings.EqualFold(name, "git~1")
}
