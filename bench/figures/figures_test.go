package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/agentlab/agentlab/bench/internal/record"
)

const page = `before
<!-- machine -->
<!-- /machine -->
<!-- start -->
old
<!-- /start -->
<!-- burst -->
<!-- /burst -->
<!-- idle -->
<!-- /idle -->
after
`

// A run replaces what it measured and leaves the rest.
func TestRunIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	run, to := filepath.Join(dir, "run"), filepath.Join(dir, "page.md")
	if err := errors.Join(os.Mkdir(run, 0o700), os.WriteFile(to, []byte(page), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Setenv(record.Folder, run)
	write := func(name string, s record.Set) {
		t.Helper()
		if err := record.Write(name, s); err != nil {
			t.Fatal(err)
		}
		if err := refresh(run, to, filepath.Join(dir, "pictures"), "qemu=7.2\ncores=2"); err != nil {
			t.Fatal(err)
		}
	}
	write("start", record.Set{Series: map[string][]float64{"exec": {3, 1, 2}, "hand_exec": {1, 1, 1}}})
	write("libvirt", record.Set{Skipped: "NOT COMPARED"})
	write("start", record.Set{Series: map[string][]float64{"exec": {4, 4, 4}, "hand_exec": {2, 2, 2}}})
	text, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"before\n", "after\n", "| qemu | 7.2 |", "| 3 | 4.00 s | 4.00 s | 2.00 × by hand |", "NOT COMPARED", "Not measured.",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") {
		t.Error("the old table is still there")
	}
}

func TestPageWithoutPlaces(t *testing.T) {
	if _, err := replace([]byte("<!-- idle -->\nopen for ever"), "idle", "x"); err == nil {
		t.Error("a table without an end was replaced")
	}
}

func TestMarksSurroundWhatIsShown(t *testing.T) {
	for _, c := range []struct {
		top  float64
		want []float64
	}{
		{0, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
		{1, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}},
		{1.3, []float64{0, 0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4}},
		{20, []float64{0, 5, 10, 15, 20}},
	} {
		if d := cmp.Diff(c.want, ticks(c.top)); d != "" {
			t.Errorf("up to %g (- want, + got):\n%s", c.top, d)
		}
	}
	if d := cmp.Diff([]float64{0.3, 1, 3, 10, 30, 100}, decades(0.5, 47)); d != "" {
		t.Errorf("decades (- want, + got):\n%s", d)
	}
}

// Every picture is XML, and holds no point outside of it.
func TestPictures(t *testing.T) {
	some := []float64{0.4, 0.7, 0.5}
	got := drawings(record.File{Sets: map[string]record.Set{
		"start":   {Series: map[string][]float64{"exec": some, "hand_exec": some, "ssh": some, "hand_ssh": some, "cold": {14}}},
		"burst":   {Series: map[string][]float64{"exec": some}, Values: map[string]float64{"bound": 2}},
		"idle":    {Series: map[string][]float64{"private": {70}, "guest": {30}, "translated": {30}, "rest": {10}}},
		"libvirt": {Series: map[string][]float64{"restore_exec": {2}}},
	}})
	if len(got) != 4 {
		t.Errorf("%d pictures", len(got))
	}
	for name, svg := range got {
		dec := xml.NewDecoder(bytes.NewReader(svg))
		for {
			_, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if bytes.Contains(svg, []byte("NaN")) || bytes.Contains(svg, []byte("Inf")) || bytes.Contains(svg, []byte(`"-`)) {
			t.Errorf("%s holds a point that is none:\n%s", name, svg)
		}
	}
	if n := len(drawings(record.File{})); n != 0 {
		t.Errorf("%d pictures of nothing", n)
	}
}
