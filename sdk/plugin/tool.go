package plugin

import (
	"context"
	"os/exec"
	"regexp"
	"sync"
	"time"

	"github.com/agentlab/agentlab/sdk/internal/proto/pluginv1"
)

// toolTimeout bounds asking one tool for its version.
const toolTimeout = time.Second

var versionPattern = regexp.MustCompile(`\d+(\.\d+)+\S*`)

// findTools looks for every tool at the same time, so that the slowest alone
// counts.
func findTools(ctx context.Context, tools []Tool) []*pluginv1.ExternalTool {
	out := make([]*pluginv1.ExternalTool, len(tools))
	var wg sync.WaitGroup
	for i, t := range tools {
		wg.Go(func() { out[i] = findTool(ctx, t) })
	}
	wg.Wait()
	return out
}

func findTool(ctx context.Context, t Tool) *pluginv1.ExternalTool {
	out := &pluginv1.ExternalTool{Name: t.Name}
	path, err := exec.LookPath(t.Name)
	if err != nil {
		return out
	}
	out.FoundPath = path
	args := t.VersionArgs
	if args == nil {
		args = []string{"--version"}
	}
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = 100 * time.Millisecond
	// Many tools print their version and still fail, or print it as an error.
	text, _ := cmd.CombinedOutput()
	out.FoundVersion = string(versionPattern.Find(text))
	return out
}
