package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/agentlab/agentlab/core/config"
)

func TestSocketIsForTheCallerOfSudoInDevOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the socket is given away")
	}
	t.Setenv("SUDO_UID", "12345")
	t.Setenv("SUDO_GID", "100")
	for _, dev := range []bool{false, true} {
		l := layout{&config.Config{RunDir: t.TempDir()}, dev}
		ln, err := l.listen()
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(filepath.Join(l.cfg.RunDir, "agentlabd.sock"))
		_ = ln.Close()
		if err != nil {
			t.Fatal(err)
		}
		owner := st.Sys().(*syscall.Stat_t)
		if given := owner.Uid == 12345; given != dev || owner.Gid == 100 || st.Mode().Perm() != 0o660 {
			t.Errorf("dev %v: socket of %d:%d, mode %v", dev, owner.Uid, owner.Gid, st.Mode())
		}
	}
}
