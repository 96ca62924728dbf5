package secretsfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/gitauth"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/cmd/agent-runner/internal/seedapply"
	"github.com/agentlab/agentlab/sdk/secret"
)

// profilePath is a shell start-up file that holds no secret itself.
const profilePath = "/etc/profile.d/agentlab-secrets.sh"

// Place lays the bundle out for login and returns the variables that programs
// of the sandbox get: the bundle's and those that let git authenticate.
// repoURL limits git's token to that server. What an earlier call left and
// the bundle no longer has is removed.
func Place(l layout.Layout, login layout.Login, b Bundle, repoURL, exe string) ([]string, error) {
	owner := layout.Owner{UID: login.UID, GID: login.GID}
	dir := l.Secrets()
	if err := layout.MakeDir(dir, 0o700, owner); err != nil {
		return nil, fmt.Errorf("place secrets: %w", err)
	}
	env := map[string]string{}
	for name, v := range b.Env {
		env[name] = v.Reveal()
	}
	auth := gitauth.Auth{
		Token: b.Git.Token, Username: b.Git.Username, Key: b.Git.SSHPrivateKey, KnownHosts: b.Git.KnownHosts, Server: repoURL,
	}
	files := auth.Files()
	maps.Copy(env, auth.Env(dir, filepath.Join(l.Run(), "askpass")))
	files["claude-settings.json"] = b.settings()
	files["env.sh"] = secret.New(shellExports(env))
	asJSON, err := json.Marshal(env)
	if err != nil {
		return nil, fmt.Errorf("place secrets: %w", err)
	}
	files["env.json"] = secret.New(string(asJSON))
	for name, v := range files {
		if err := placeOne(filepath.Join(dir, name), v, owner); err != nil {
			return nil, err
		}
	}
	err = errors.Join(
		link(exe, filepath.Join(l.Run(), "askpass")),
		placeSettings(l, login, !b.settings().Empty()),
		layout.WriteFile(l.At(profilePath), []byte("# Secrets of this sandbox, for login shells.\n"+
			"if [ -r "+dir+"/env.sh ]; then . "+dir+"/env.sh; fi\n"), 0o644, layout.Owner{}),
	)
	if err != nil {
		return nil, fmt.Errorf("place secrets: %w", err)
	}
	if keys := b.operatorKeys(); len(keys) > 0 {
		if err := seedapply.AuthorizeKeys(l, login, keys); err != nil {
			return nil, err
		}
	}
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list, nil
}

func placeOne(path string, v secret.Value, owner layout.Owner) error {
	if v.Empty() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove old secret: %w", err)
		}
		return nil
	}
	if err := layout.WriteFile(path, []byte(v.Reveal()), 0o400, owner); err != nil {
		return fmt.Errorf("place secret: %w", err)
	}
	return nil
}

// placeSettings makes ~/.claude/settings.json a link to the settings on tmpfs.
// A file of the template in that place is kept beside it. The directory is the
// agent's own, so nothing outside of the home is reached through it.
func placeSettings(l layout.Layout, login layout.Login, wanted bool) error {
	home, err := os.OpenRoot(l.At(login.Home))
	if err != nil {
		return fmt.Errorf("open home: %w", err)
	}
	defer home.Close()
	const dir, name = ".claude", ".claude/settings.json"
	st, err := home.Lstat(name)
	isLink := err == nil && st.Mode()&os.ModeSymlink != 0
	if !wanted {
		if isLink {
			return home.Remove(name)
		}
		return nil
	}
	if err := home.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make settings directory: %w", err)
	}
	switch {
	case isLink:
		err = home.Remove(name)
	case err == nil:
		err = home.Rename(name, name+".template")
	default:
		err = nil
	}
	if err == nil {
		err = home.Symlink(filepath.Join(l.Secrets(), "claude-settings.json"), name)
	}
	if err == nil && os.Geteuid() == 0 {
		err = errors.Join(home.Lchown(dir, int(login.UID), int(login.GID)), home.Lchown(name, int(login.UID), int(login.GID)))
	}
	if err != nil {
		return fmt.Errorf("link settings: %w", err)
	}
	return nil
}

func link(target, path string) error {
	if old, err := os.Readlink(path); err == nil && old == target {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace link: %w", err)
	}
	if err := os.Symlink(target, path); err != nil {
		return fmt.Errorf("link: %w", err)
	}
	return nil
}

func shellExports(env map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(env)) {
		fmt.Fprintf(&b, "export %s='%s'\n", name, strings.ReplaceAll(env[name], "'", `'\''`))
	}
	return b.String()
}
