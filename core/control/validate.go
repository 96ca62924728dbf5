package control

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agentlab/agentlab/core/api"
	"github.com/agentlab/agentlab/core/disk"
	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// askTimeout bounds a question to a plugin during validation.
const askTimeout = 3 * time.Second

// checkTTL turns seconds into a duration; 0 stays 0.
func checkTTL(seconds int64) (time.Duration, error) {
	if seconds < 0 || seconds > int64(longestTTL/time.Second) {
		return 0, fault.New(fault.Invalid, "ttl of %d seconds is not between 0 and %d", seconds, int64(longestTTL/time.Second))
	}
	return time.Duration(seconds) * time.Second, nil
}

// checkName refuses names early, before a plugin is asked.
func checkName(name string) error {
	if name == "" {
		return nil
	}
	if err := lab.CheckName(name); err != nil {
		return fault.New(fault.Invalid, "sandbox name %q: %w", name, err)
	}
	return nil
}

// checkWork checks what a job shall do and on what.
func (s *Server) checkWork(ctx context.Context, in api.JobCheck) []error {
	var problems []error
	if strings.TrimSpace(in.Task) == "" {
		problems = append(problems, fault.New(fault.Invalid, "task is empty"))
	}
	if strings.ContainsRune(in.Task, 0) {
		problems = append(problems, fault.New(fault.Invalid, "task holds a NUL character"))
	}
	problems = append(problems, checkRef(in.Ref), s.roomForResults())
	switch {
	case in.LocalRepo && in.RepoURL+in.RepoID == "":
		return problems
	case (in.RepoURL == "") == (in.RepoID == "") || in.LocalRepo:
		return append(problems, fault.New(fault.Invalid, "exactly one of repo_url and repo_id is needed"))
	case in.RepoURL != "":
		return append(problems, checkRepoURL(in.RepoURL))
	}
	return append(problems, s.checkUpload(ctx, in.RepoID))
}

// roomForResults: an agent's work of hours would find no place.
func (s *Server) roomForResults() error {
	if err := disk.Room(s.cfg.ArtifactsDir, 0, s.cfg.DiskFloor); err != nil {
		return fmt.Errorf("keep what the job leaves: %w", err)
	}
	return nil
}

func (s *Server) checkUpload(ctx context.Context, id string) error {
	repo, err := s.cfg.Store.Repo(ctx, id)
	if errors.Is(err, fault.NotFound) {
		return fault.New(fault.Invalid, "there is no uploaded repository %q", id).WithHint("upload it first, with POST /v1/repos")
	}
	if err != nil {
		return err
	}
	if repo.UsedBy != "" {
		return fault.New(fault.Precondition, "uploaded repository %q belongs to job %s", id, repo.UsedBy).
			WithHint("upload it again")
	}
	return nil
}

// checkRef refuses what git would take for an option or never accept.
func checkRef(ref string) error {
	bad := strings.HasPrefix(ref, "-") || strings.HasPrefix(ref, "/") || strings.HasSuffix(ref, "/") ||
		strings.HasSuffix(ref, ".lock") || strings.Contains(ref, "..") || strings.Contains(ref, "@{") || len(ref) > 255 ||
		strings.ContainsFunc(ref, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`~^:?*[\`, r) })
	if bad {
		return fault.New(fault.Invalid, "ref %q is not a branch, a tag or a commit", ref)
	}
	return nil
}

var scpLike = regexp.MustCompile(`^([A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*:[^:/\s-][^\s]*$`)

// checkRepoURL accepts what git can clone from inside a sandbox. A password in
// the URL is refused: rows and events would show it.
func checkRepoURL(raw string) error {
	invalid := fault.New(fault.Invalid, "repository URL cannot be used in a sandbox").
		WithHint("use https://, http://, ssh://, git:// or user@host:path; a local path is uploaded by agentlab job run --repo PATH")
	if len(raw) > 2048 || strings.HasPrefix(raw, "-") || strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return invalid
	}
	if !strings.Contains(raw, "://") {
		if scpLike.MatchString(raw) && !strings.Contains(raw, "::") {
			return nil
		}
		return invalid
	}
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") ||
		!slices.Contains([]string{"https", "http", "ssh", "git"}, u.Scheme) {
		return invalid
	}
	_, password := u.User.Password()
	if password || u.User != nil && strings.HasPrefix(u.Scheme, "http") {
		return fault.New(fault.Invalid, "repository URL holds a token or password").
			WithHint("put it into the secrets bundle as git.token")
	}
	return nil
}

func (s *Server) checkBundle(ctx context.Context, bundle string) error {
	if bundle == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var names []string
	err := error(fault.Unsupported)
	if s.cfg.Secrets != nil {
		names, err = s.cfg.Secrets.List(ctx)
	}
	if errors.Is(err, fault.Unsupported) {
		return fault.New(fault.Invalid, "secrets bundle %q is named, and there is no secrets plugin", bundle).
			WithHint("add a plugin \"secrets\" block to config.hcl")
	}
	if err != nil {
		return fmt.Errorf("list secrets bundles: %w", err)
	}
	if !slices.Contains(names, bundle) {
		return fault.New(fault.Invalid, "there is no secrets bundle %q", bundle).WithHint("bundles: %s", orNone(names))
	}
	return s.checkReadable(ctx, bundle)
}

// checkReadable refuses a bundle that will not open when a guest asks for it:
// it cannot be decrypted, or is not in the bundle format. The plugin says why,
// and mostly how to mend it.
func (s *Server) checkReadable(ctx context.Context, bundle string) error {
	about, err := s.cfg.Secrets.Describe(ctx, bundle)
	if errors.Is(err, fault.Unsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at secrets bundle %q: %w", bundle, err)
	}
	if len(about.Problems) > 0 {
		return fault.New(fault.Precondition, "secrets bundle %q cannot be opened: %s", bundle, strings.Join(about.Problems, "; ")).
			WithHint("%s", bundleRemedy(about.Problems))
	}
	return nil
}

// modeRemedy is a command that a plugin puts behind a problem with a file's mode.
var modeRemedy = regexp.MustCompile(`\(((?:chmod|chown) [^()]+)\)$`)

// bundleRemedy gives the commands that the problems name, else what is to be done.
func bundleRemedy(problems []string) string {
	var commands []string
	for _, p := range problems {
		if m := modeRemedy.FindStringSubmatch(p); m != nil {
			commands = append(commands, m[1])
		}
	}
	if len(commands) == 0 {
		return "put key and bundle in order on the host, then try again"
	}
	return "on the host, as root: " + strings.Join(commands, "; ")
}

func (s *Server) findTemplate(ctx context.Context, want string) (hypervisor.Template, error) {
	list, err := s.templates.find(ctx, s.cfg.Hypervisor, want)
	if err != nil {
		return hypervisor.Template{}, fmt.Errorf("list templates: %w", err)
	}
	i := slices.IndexFunc(list, func(t hypervisor.Template) bool { return isTemplate(t, want) })
	if i < 0 {
		return hypervisor.Template{}, fault.New(fault.Invalid, "there is no template %q", want).WithHint("templates: %s", orNone(wholeOnes(list)))
	}
	if f := brokenBy(list[i]); f != nil {
		return list[i], fault.New(fault.Precondition, "template %q cannot be used: %s", want, f.Message).WithHint("%s", f.Fix)
	}
	return list[i], nil
}

// brokenBy is why a template cannot be used; nil when it can.
func brokenBy(t hypervisor.Template) *plugin.Finding {
	for _, f := range t.Findings {
		if f.Level == plugin.LevelMissing {
			return &f
		}
	}
	return nil
}

// wholeOnes names the templates that can be used, each once.
func wholeOnes(list []hypervisor.Template) (names []string) {
	for _, t := range list {
		if name := fmt.Sprintf("%s (%d)", t.Name, t.VMID); brokenBy(t) == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func isTemplate(t hypervisor.Template, want string) bool {
	return t.Name == want || strconv.FormatUint(uint64(t.VMID), 10) == want
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
