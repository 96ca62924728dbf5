package gitauth

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/agentlab/agentlab/sdk/secret"
)

// ProgramName is the name under which agent-runner answers git's questions.
const ProgramName = "askpass"

// Names of files in the secrets directory.
const (
	tokenFile    = "git-token"
	usernameFile = "git-username"
	serverFile   = "git-server"
	keyFile      = "git-key"
	hostsFile    = "known_hosts"
)

// defaultUsername is what the large forges accept beside a token.
const defaultUsername = "x-access-token"

// Auth is how git authenticates.
type Auth struct {
	Token      secret.Value // for https
	Username   string       // beside Token
	Key        secret.Value // for ssh
	KnownHosts string
	Server     string // URL of the repository; Token is given to its server only
}

// Files gives the files to place in the secrets directory. An empty value
// means that there must be no such file.
func (a Auth) Files() map[string]secret.Value {
	files := map[string]secret.Value{
		tokenFile: a.Token, usernameFile: secret.New(a.Username), serverFile: secret.New(origin(a.Server)),
		keyFile: a.Key, hostsFile: secret.New(a.KnownHosts),
	}
	// ssh refuses a key without a last line break.
	if key := a.Key.Reveal(); key != "" && !strings.HasSuffix(key, "\n") {
		files[keyFile] = secret.New(key + "\n")
	}
	return files
}

// Env gives the variables that make git use the files in dir. askpass is the
// path of a program that behaves as Answer.
func (a Auth) Env(dir, askpass string) map[string]string {
	env := map[string]string{}
	if !a.Token.Empty() {
		env["GIT_ASKPASS"] = askpass
		env["AGENTLAB_SECRETS_DIR"] = dir
	}
	if a.Key.Empty() && a.KnownHosts == "" {
		return env
	}
	ssh := "ssh -o BatchMode=yes"
	if !a.Key.Empty() {
		ssh += " -o IdentitiesOnly=yes -i " + quote(filepath.Join(dir, keyFile))
	}
	if a.KnownHosts != "" {
		ssh += " -o StrictHostKeyChecking=yes -o UserKnownHostsFile=" + quote(filepath.Join(dir, hostsFile))
	} else {
		ssh += " -o StrictHostKeyChecking=accept-new"
	}
	env["GIT_SSH_COMMAND"] = ssh
	return env
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// origin is scheme and host of an http URL, "" for any other.
func origin(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") {
		return ""
	}
	return u.Scheme + "://" + strings.ToLower(u.Host)
}

var question = regexp.MustCompile(`^(Username|Password) for '(https?://[^']+)': ?$`)

// Answer answers one question of git from the files in dir. The token goes to
// the job's own server; without one, to any server over https.
func Answer(dir, prompt string) (string, error) {
	m := question.FindStringSubmatch(prompt)
	if m == nil {
		return "", fmt.Errorf("this question has no answer here: %q", prompt)
	}
	asks := origin(m[2])
	if at := strings.LastIndexByte(asks, '@'); at >= 0 {
		return "", fmt.Errorf("a malformed server name")
	}
	server, _ := os.ReadFile(filepath.Join(dir, serverFile))
	if len(server) > 0 && asks != string(server) {
		return "", fmt.Errorf("the git token is for %s, not for %s", server, asks)
	}
	if len(server) == 0 && !strings.HasPrefix(asks, "https://") {
		return "", fmt.Errorf("the git token does not go to %s unencrypted", asks)
	}
	if m[1] == "Username" {
		if name, err := os.ReadFile(filepath.Join(dir, usernameFile)); err == nil && len(name) > 0 {
			return string(name), nil
		}
		return defaultUsername, nil
	}
	token, err := os.ReadFile(filepath.Join(dir, tokenFile))
	if err != nil {
		return "", fmt.Errorf("read git token: %w", err)
	}
	return strings.TrimSpace(string(token)), nil
}
