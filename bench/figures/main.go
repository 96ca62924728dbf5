package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/agentlab/agentlab/bench/internal/record"
)

func main() {
	run := flag.String("run", "", "`folder` with what a run measured")
	page := flag.String("page", "docs/performance.md", "`file` whose tables are replaced")
	pictures := flag.String("pictures", "docs/performance", "`folder` for the pictures and the figures")
	machine := flag.String("machine", "", "KEY=VALUE lines about the machine")
	flag.Parse()
	if err := refresh(*run, *page, *pictures, *machine); err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(1)
	}
}

// refresh takes a run's figures over and makes everything anew that shows them.
func refresh(run, page, pictures, machine string) error {
	path := filepath.Join(pictures, "figures.json")
	f, err := record.Load(path)
	if err != nil {
		return err
	}
	if run != "" {
		about := map[string]string{}
		for line := range strings.Lines(machine) {
			if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				about[k] = v
			}
		}
		if err := f.Merge(run, about); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(pictures, 0o755); err != nil {
		return err
	}
	if err := f.Save(path); err != nil {
		return err
	}
	for name, svg := range drawings(f) {
		if err := os.WriteFile(filepath.Join(pictures, name+".svg"), svg, 0o644); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	for name, table := range tables(f) {
		if text, err = replace(text, name, table); err != nil {
			return fmt.Errorf("%s: %w", page, err)
		}
	}
	return os.WriteFile(page, text, 0o644)
}

// replace puts the table between the comments that name it.
func replace(text []byte, name, table string) ([]byte, error) {
	from, to := []byte("<!-- "+name+" -->\n"), []byte("<!-- /"+name+" -->")
	before, rest, found := bytes.Cut(text, from)
	_, after, ended := bytes.Cut(rest, to)
	if !found || !ended {
		return nil, fmt.Errorf("no comments %q around a table", name)
	}
	return bytes.Join([][]byte{before, from, []byte(table), to, after}, nil), nil
}
