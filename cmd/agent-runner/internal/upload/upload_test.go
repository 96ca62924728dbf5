package upload_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/upload"
	"github.com/agentlab/agentlab/core/guestapi"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

func tree(t *testing.T) (*os.Root, string) {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	for name, text := range map[string]string{"b.txt": "bb", "a/deep/x": "x", "leak": strings.Repeat("z", 300<<10) + "planted-secret"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("/etc/passwd", dir+"/link"), os.Symlink("/etc", dir+"/dir"), syscall.Mkfifo(dir+"/pipe", 0o644)); err != nil {
		t.Fatal(err)
	}
	return root, dir
}

func TestList(t *testing.T) {
	root, _ := tree(t)
	files, passed, err := upload.List(root)
	want := []upload.File{{"a/deep/x", 1}, {"b.txt", 2}, {"leak", 300<<10 + 14}}
	if diff := cmp.Diff(want, files); err != nil || passed != 3 || diff != "" {
		t.Errorf("passed %d, %v, %s", passed, err, diff)
	}
}

func TestListTooMany(t *testing.T) {
	root, dir := tree(t)
	for i := range upload.MostFiles {
		if err := os.WriteFile(fmt.Sprintf("%s/f%04d", dir, i), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, _, err := upload.List(root)
	if !errors.Is(err, fault.Exhausted) || len(files) != upload.MostFiles || files[0].Path != "a/deep/x" {
		t.Errorf("%d files, %v", len(files), err)
	}
}

func TestHolds(t *testing.T) {
	root, dir := tree(t)
	r := secret.NewRedactor(secret.New("planted-secret"))
	for shift := range 20 { // wherever it lies in relation to a read
		if err := os.WriteFile(dir+"/leak", []byte(strings.Repeat("z", 256<<10-shift)+"planted-secret"+strings.Repeat("y", shift)), 0o644); err != nil {
			t.Fatal(err)
		}
		if found, err := upload.Holds(root, "leak", r); err != nil || !found {
			t.Errorf("shift %d: %v %v", shift, found, err)
		}
	}
	if found, err := upload.Holds(root, "b.txt", r); err != nil || found {
		t.Errorf("found in a clean file: %v", err)
	}
	if _, err := upload.Holds(root, "link", r); err == nil {
		t.Error("a link was followed")
	}
	if _, err := upload.Holds(root, "pipe", r); err == nil {
		t.Error("a pipe was read")
	}
}

func TestSend(t *testing.T) {
	root, _ := tree(t)
	calls := 0
	put := func(_ context.Context, path string, body io.Reader, size int64) (guestapi.UploadReply, error) {
		calls++
		b, _ := io.ReadAll(body)
		if path != "as/b" || string(b) != "bb" || size != 2 {
			t.Errorf("put %s %q %d", path, b, size)
		}
		if calls < 3 {
			return guestapi.UploadReply{}, fault.New(fault.Unavailable, "down")
		}
		return guestapi.UploadReply{}, nil
	}
	sender := upload.Sender{Root: root, Limit: 10, Put: put}
	if err := sender.Send(t.Context(), "b.txt", "as/b"); err != nil || calls != 3 {
		t.Errorf("%d calls, %v", calls, err)
	}
	if err := sender.Send(t.Context(), "leak", "leak"); !errors.Is(err, fault.Exhausted) ||
		!strings.Contains(err.Error(), "it has 300.0 KiB, more than the 10 B allowed (artifact_max_bytes ") {
		t.Errorf("too large: %v", err)
	}
}
