package confine

import "testing"

func TestTasksFollowMemory(t *testing.T) {
	for memory, want := range map[int64]int64{0: 512, 256 << 20: 512, 768 << 20: 768, 2 << 30: 2048, 64 << 30: 4096} {
		if got := tasks(memory); got != want {
			t.Errorf("tasks(%d MiB) = %d, want %d", memory>>20, got, want)
		}
	}
}
