package driver

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/agentlab/agentlab/plugins/qemu/internal/procfs"
	"github.com/agentlab/agentlab/plugins/qemu/internal/spawn"
	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/hypervisor"
	"github.com/agentlab/agentlab/sdk/plugin"
)

// spareOf is a spare of the template whose program is this test.
func spareOf(t *testing.T, key string, pid int) *spare {
	t.Helper()
	st, err := procfs.ReadStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	return &spare{key: key, program: &spawn.Program{Identity: procfs.Identity{PID: pid, StartTicks: st.StartTicks}}}
}

// A failure is tried again by itself, but not at once.
func TestSparesAfterAFailure(t *testing.T) {
	tests := map[string]struct {
		err   error
		early time.Duration // nothing happens until then
		late  time.Duration // something happened by then
	}{
		"no memory":      {fault.New(fault.Exhausted, "full"), 59 * time.Second, 2 * time.Minute},
		"runner too old": {fault.New(fault.Unsupported, "old"), 59 * time.Minute, 62 * time.Minute},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, calls := newSpares(), 0
				ask := func() {
					s.begin(t.Context(), "a", func(context.Context) error { calls++; return tt.err })
					synctest.Wait()
				}
				ask()
				ask()
				time.Sleep(tt.early)
				ask()
				if calls != 1 {
					t.Errorf("%d tries within %s, want 1", calls, tt.early)
				}
				if n, wanted, err := s.state(); n != 0 || !wanted || !errors.Is(err, tt.err) {
					t.Errorf("state = %d, %v, %v", n, wanted, err)
				}
				time.Sleep(tt.late - tt.early)
				if calls != 2 {
					t.Errorf("%d tries within %s, want 2", calls, tt.late)
				}
				s.close()
			})
		})
	}
}

// One that has ended does not count as waiting, and another is made without being asked.
func TestSparesThatEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSpares()
		lives := spareOf(t, "a", os.Getpid())
		program := exec.Command("sleep", "60")
		if err := program.Start(); err != nil {
			t.Fatal(err)
		}
		ends := spareOf(t, "a", program.Process.Pid)
		next := []*spare{ends, lives}
		s.begin(t.Context(), "a", func(context.Context) error {
			s.useless()
			for s.lacks("a", 1) {
				s.put(next[0])
				next = next[1:]
			}
			return nil
		})
		synctest.Wait()
		if n, _, _ := s.state(); n != 1 {
			t.Fatalf("%d wait, want 1", n)
		}
		_ = program.Process.Kill()
		_ = program.Wait()
		if n, _, _ := s.state(); n != 0 {
			t.Errorf("%d wait, want none", n)
		}
		time.Sleep(lookAgain + time.Second)
		if n, _, _ := s.state(); n != 1 || s.take("a") != lives {
			t.Error("no other was made")
		}
		s.close()
	})
}

// Nobody comes for a spare of another template, of none, or after the end.
func TestSparesThatNobodyWants(t *testing.T) {
	s := newSpares()
	one := spareOf(t, "a", os.Getpid())
	nothing := func(context.Context) error { return nil }
	s.begin(t.Context(), "b", nothing)
	if s.put(one) {
		t.Error("one of another template was taken")
	}
	s.begin(t.Context(), "a", nothing)
	if !s.put(one) || len(s.useless()) != 0 {
		t.Fatal("the one that is wanted was not taken")
	}
	s.begin(t.Context(), "b", nothing)
	if got := s.useless(); len(got) != 1 || s.take("a") != nil {
		t.Errorf("useless are %v, want one", got)
	}
	s.begin(t.Context(), "a", nothing)
	s.put(one)
	if got := s.drop("a"); len(got) != 1 || s.lacks("a", 1) || s.put(one) {
		t.Errorf("after the template went: %v", got)
	}
	s.begin(t.Context(), "a", nothing)
	s.put(one)
	if got := s.close(); len(got) != 1 || s.put(one) || s.lacks("a", 1) {
		t.Errorf("after the end: %v", got)
	}
	s.begin(t.Context(), "a", func(context.Context) error { t.Error("some are made after the end"); return nil })
	s.running.Wait()
}

// Spares are made when nobody waits for a start.
func TestSparesLeaveStartsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSpares()
		done := s.starting()
		began := time.Now()
		time.AfterFunc(9*time.Second, done)
		if err := s.quiet(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 9*time.Second+headStart || took > 9*time.Second+2*headStart {
			t.Errorf("it waited %s for a start of 9 s", took)
		}
		began = time.Now()
		if err := s.quiet(t.Context()); err != nil || time.Since(began) != 0 {
			t.Errorf("it waited %s for nothing: %v", time.Since(began), err)
		}
	})
}

func TestNoSpareWhereMemoryIsShort(t *testing.T) {
	d := &Driver{}
	d.vault.Memory = func() (uint64, uint64, error) { return 8 << 30, 512<<20 + spareMemory - 1, nil }
	if err := d.roomForSpare(512 << 20); !errors.Is(err, fault.Exhausted) {
		t.Errorf("one byte too few: %v, want exhausted", err)
	}
	if err := d.roomForSpare(512<<20 - 1); err != nil {
		t.Errorf("just enough: %v", err)
	}
}

// A plugin that starts anew has spares before anybody asks, and replaces those that ended.
func TestSparesAreRestored(t *testing.T) {
	l, d := spareLab(t)
	l.power(d, hypervisor.PowerOn, 0)
	l.destroyAndCheck(d)
	if err := d.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	l.noSparesLeft()
	d = l.driver()
	if f := d.sparesFinding(); f.Level != plugin.LevelOK || f.Message != "0 of 1 spare guests wait: no VM has started from memory yet" {
		t.Errorf("finding = %+v", f)
	}
	if err := d.RestoreSpares(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := l.waits(d); err != nil {
		t.Fatal(err)
	}
	dead := l.strays()
	for _, id := range dead {
		if err := unix.Kill(id.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n != 0; n, _, _ = d.spares.state() {
		time.Sleep(time.Millisecond)
	}
	d.spares.wake <- struct{}{} // as a minute later
	if err := l.waits(d); err != nil {
		t.Fatal(err)
	}
	if now := l.strays(); len(now) != 1 || now[0] == dead[0] {
		t.Errorf("programs %v: want another spare than %v", now, dead)
	}
	if err := d.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	l.noSparesLeft()
	l.config.TemplateDir = t.TempDir()
	for _, what := range []string{"image", "template"} {
		d := l.driver()
		if what == "template" {
			if err := d.memory.Remove(l.keys(d)[0]); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.RestoreSpares(testContext(t)); err != nil {
			t.Errorf("without the %s: %v", what, err)
		}
		if _, wanted, _ := d.spares.state(); wanted {
			t.Errorf("without the %s spares are wanted", what)
		}
	}
}
