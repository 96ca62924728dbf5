package gitrepo

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A directory of the caller's must not lead root to other files.
func TestRootFollowsNoLinkOfTheCaller(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to stand in for sudo")
	}
	as := &caller{credential: syscall.Credential{Uid: 1234, Gid: 1234, Groups: []uint32{1234}}, home: "/nonexistent"}
	precious := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(precious, []byte("root's"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := as.tempDir("agentlab-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	link := filepath.Join(dir, "link")
	if err := os.Symlink(precious, link); err != nil {
		t.Fatal(err)
	}
	if err := as.put(t.Context(), link, strings.NewReader("stolen")); err == nil {
		t.Error("wrote through a link")
	}
	if f, err := as.open(link); err == nil {
		f.Close()
		t.Error("read through a link")
	}
	if b, err := os.ReadFile(precious); err != nil || !bytes.Equal(b, []byte("root's")) {
		t.Errorf("the file holds %q, %v", b, err)
	}
	own := filepath.Join(dir, "own")
	if err := as.put(t.Context(), own, strings.NewReader("theirs")); err != nil {
		t.Fatal(err)
	}
	f, err := as.open(own)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}
