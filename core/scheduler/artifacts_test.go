package scheduler

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agentlab/agentlab/core/lab"
	"github.com/agentlab/agentlab/core/state"
)

// Artifacts go when their profile's time is over, counted from the job's end, and
// not before; what cannot be removed is tried again.
func TestArtifactsAreKeptForTheirTime(t *testing.T) {
	inBubble(t, "", func(b *bench) {
		ctx := context.Background()
		const kept = 4 * time.Hour // collected every hour
		var mu sync.Mutex          // guards files
		files, broken := map[string]bool{"job_unknown": true}, false
		b.adapt = func(c *Config) {
			c.Timing.EventsKept = 1000 * kept
			c.ArtifactJobs = func(context.Context) ([]string, error) {
				mu.Lock()
				defer mu.Unlock()
				return slices.Sorted(maps.Keys(files)), nil
			}
			c.CleanArtifacts = func(_ context.Context, id string) error {
				if broken {
					return errors.New("read-only file system")
				}
				mu.Lock()
				defer mu.Unlock()
				delete(files, id)
				return nil
			}
		}
		b.start(-1)
		submit := func(keep time.Duration) string {
			s := spec("destroy")
			s.ArtifactsFor = keep
			_, _, job, err := b.RunJob(ctx, JobRequest{Profile: "p", Task: "", Spec: s})
			if err != nil {
				t.Fatal(err)
			}
			mu.Lock()
			files[job.ID] = true
			mu.Unlock()
			if err := b.store.PutArtifact(ctx, lab.Artifact{JobID: job.ID, Path: "out", Size: 5}); err != nil {
				t.Fatal(err)
			}
			return job.ID
		}
		short, ever := submit(kept), submit(0)
		b.settle()
		has := func(id string) [2]bool {
			rows, err := b.store.Artifacts(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			return [2]bool{len(rows) > 0, files[id]}
		}
		time.Sleep(kept - 2*time.Hour)
		synctest.Wait()
		if got := has(short); got != [2]bool{true, true} {
			t.Errorf("before its time: rows and files %v", got)
		}
		broken = true
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		if got := has(short); got != [2]bool{false, true} {
			t.Errorf("files that cannot be removed: rows and files %v", got)
		}
		broken = false
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if got := has(short); got != [2]bool{false, false} {
			t.Errorf("after its time: rows and files %v", got)
		}
		if has(ever) != [2]bool{true, true} || !files["job_unknown"] {
			t.Errorf("what is kept for ever: %v; what is nobody's: %v", has(ever), files)
		}
		events, err := b.store.Events(ctx, state.EventFilter{Types: []string{lab.EventArtifactsEnded}})
		if err != nil || len(events) != 1 || events[0].JobID != short || events[0].Fields["files"] != "1" || events[0].Fields["bytes"] != "5" {
			t.Errorf("events %+v, %v", events, err)
		}
	})
}

func TestArtifactsOfAJobThatRunsStay(t *testing.T) {
	inBubble(t, "hang", func(b *bench) {
		ctx := context.Background()
		b.start(-1)
		job := b.submitJob("destroy")
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := b.store.PutArtifact(ctx, lab.Artifact{JobID: job.ID, Path: "out", Size: 5}); err != nil {
			t.Fatal(err)
		}
		if err := b.store.ForgetArtifacts(ctx, job.ID); err == nil {
			t.Error("the rows of a job that runs were removed")
		}
		if list, err := b.store.Artifacts(ctx, job.ID); err != nil || len(list) != 1 {
			t.Errorf("left are %v, %v", list, err)
		}
	})
}
