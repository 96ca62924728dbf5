package gitrepo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// allocLimit bounds, for git, each piece of memory that a foreign bundle makes it
// take: a few bytes in a pack may stand for a tree of many gigabytes.
const allocLimit = "GIT_ALLOC_LIMIT=1g"

// incomingRef holds the bundle's commit in the temporary repository.
const incomingRef = "refs/agentlab/incoming"

// Fetch brings the commits of a bundle made by MakeChanges into the user's
// repository as the given branch ("agentlab/job_…") and returns the commit that
// the branch is at. The bundle is not trusted: it is read into a bare
// repository of its own and checked object by object before the user's
// repository sees any of it. Nothing is checked out and no hook runs. Repeating
// the call changes nothing. fault.Invalid: not a usable bundle;
// fault.Precondition: the repository lacks the commits it builds on;
// fault.Conflict: the branch has other commits.
func Fetch(ctx context.Context, dir, bundlePath, branch string) (string, error) {
	if !plainBranch("refs/heads/" + branch) {
		return "", fault.New(fault.Invalid, "%q is not a usable branch name", branch)
	}
	bundlePath, err := filepath.Abs(bundlePath)
	if err != nil {
		return "", fmt.Errorf("resolve bundle: %w", err)
	}
	head, err := readBundleHeader(bundlePath)
	if err != nil {
		return "", err
	}
	src, err := openSource(ctx, dir)
	if err != nil {
		return "", err
	}
	if head.objects != src.objects {
		return "", fault.New(fault.Invalid, "the bundle has %s objects, the repository %s", head.objects, src.objects)
	}
	temp, err := src.as.tempDir("agentlab-fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	stage, err := src.stage(ctx, filepath.Join(temp, "stage.git"))
	if err != nil {
		return "", err
	}
	stage.env = append(stage.env, allocLimit)
	if err := stage.admit(ctx, head, bundlePath); err != nil {
		return "", err
	}
	return src.adopt(ctx, stage, branch)
}

// admit reads the bundle into the temporary repository, with all checks on.
func (st staging) admit(ctx context.Context, head bundleHeader, file string) error {
	for i, commit := range head.needs {
		if _, err := st.run(ctx, "cat-file", "-e", commit+"^{commit}"); err != nil {
			return fault.New(fault.Precondition, "the repository lacks commit %s, on which the job's commits build", commit).
				WithHint("fetch it first (git fetch --all), or name the repository that the job was started from")
		}
		// git asks for prerequisites to be reachable from a reference.
		if _, err := st.run(ctx, "update-ref", fmt.Sprintf("refs/agentlab/base-%d", i), commit); err != nil {
			return fmt.Errorf("name base commit: %w", err)
		}
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("open bundle: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(head.size, io.SeekStart); err != nil {
		return fmt.Errorf("skip bundle header: %w", err)
	}
	// git's own fetch from a bundle does not check objects, index-pack does.
	var out limited
	if err := st.stream(ctx, f, &out, "index-pack", "--stdin", "--fix-thin", "--strict"); err != nil {
		return fault.New(fault.Invalid, "the bundle does not pass git's checks: %w", err)
	}
	if _, err := st.run(ctx, append([]string{"rev-list", "--objects", "--quiet", head.commit, "--not"}, head.needs...)...); err != nil {
		return fault.New(fault.Invalid, "the bundle lacks objects: %w", err)
	}
	if _, err := st.run(ctx, "update-ref", incomingRef, head.commit); err != nil {
		return fault.New(fault.Invalid, "the bundle does not hold the commit it names: %w", err)
	}
	return nil
}

// adopt copies the checked commits from the temporary repository.
func (s *source) adopt(ctx context.Context, stage staging, branch string) (string, error) {
	ref := "refs/heads/" + branch
	if old, err := s.run(ctx, "rev-parse", "--verify", "--quiet", ref+"^{commit}"); err == nil {
		if _, err := stage.run(ctx, "merge-base", "--is-ancestor", old, incomingRef); err != nil {
			return "", fault.New(fault.Conflict, "branch %s has other commits", branch).
				WithHint("rename it (git branch -m %s NEW) or delete it (git branch -D %s)", branch, branch)
		}
	}
	g := s.git
	g.env = append(append([]string{}, s.env...), allocLimit)
	g.config = append(append([]string{}, s.config...), "fetch.fsckObjects=true", "transfer.fsckObjects=true", "protocol.file.allow=always")
	_, err := g.run(ctx, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
		"--no-recurse-submodules", "--no-prune", "--refmap=", stage.dir, incomingRef+":"+ref)
	if said(err, "refusing to fetch", "rejected") {
		return "", fault.New(fault.Conflict, "branch %s is checked out: %w", branch, err)
	}
	if err != nil {
		return "", fmt.Errorf("fetch checked commits: %w", err)
	}
	commit, err := g.run(ctx, "rev-parse", "--verify", ref+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("read branch back: %w", err)
	}
	return commit, nil
}

// bundleHeader is what a bundle says about itself.
type bundleHeader struct {
	objects string
	needs   []string // commits that the receiver must have
	ref     string   // what to take: HEAD, else the first branch
	commit  string   // that it is at
	size    int64    // bytes of the header; the pack follows
}

func readBundleHeader(path string) (bundleHeader, error) {
	h := bundleHeader{objects: "sha1"}
	f, err := os.Open(path)
	if err != nil {
		return h, fault.New(fault.NotFound, "open bundle: %w", err)
	}
	defer f.Close()
	const maxHeader = 1 << 20
	lines := bufio.NewReader(io.LimitReader(f, maxHeader))
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		if err != nil {
			return h, fault.New(fault.Invalid, "%s is not a git bundle", path)
		}
		h.size += int64(len(line))
		line = strings.TrimSuffix(line, "\n")
		if n == 0 && line != "# v2 git bundle" && line != "# v3 git bundle" {
			return h, fault.New(fault.Invalid, "%s is not a git bundle", path)
		}
		if line == "" {
			break
		}
		if n == 0 {
			continue
		}
		if err := h.line(line); err != nil {
			return h, err
		}
	}
	if h.ref == "" {
		return h, fault.New(fault.Invalid, "the bundle names no branch")
	}
	return h, nil
}

func (h *bundleHeader) line(line string) error {
	switch {
	case strings.HasPrefix(line, "@object-format="):
		h.objects = strings.TrimPrefix(line, "@object-format=")
	case strings.HasPrefix(line, "@"):
		return fault.New(fault.Unsupported, "the bundle asks for %q", line)
	case strings.HasPrefix(line, "-"):
		commit, _, _ := strings.Cut(line[1:], " ")
		if !commitPattern.MatchString(commit) || len(h.needs) > 1000 {
			return fault.New(fault.Invalid, "the bundle's list of base commits is malformed")
		}
		h.needs = append(h.needs, commit)
	default:
		commit, ref, _ := strings.Cut(line, " ")
		if commitPattern.MatchString(commit) && (ref == "HEAD" || (h.ref == "" && plainBranch(ref))) {
			h.ref, h.commit = ref, commit
		}
	}
	return nil
}
