package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
)

// Folder is the environment variable that names where Write puts its files.
const Folder = "AGENTLAB_BENCH_OUT"

// Set is what one benchmark measured.
type Set struct {
	// Series are single measurements in the order in which they were made.
	Series map[string][]float64 `json:"series,omitempty"`
	Values map[string]float64   `json:"values,omitempty"`
	// Skipped says why nothing was measured.
	Skipped string `json:"skipped,omitempty"`
}

// File is all that is known, of one or more runs.
type File struct {
	Machine map[string]string `json:"machine"`
	Sets    map[string]Set    `json:"sets"`
}

// Write keeps a set for the run's end. Where nobody wants it, it does nothing.
func Write(name string, s Set) error {
	dir := os.Getenv(Folder)
	if dir == "" {
		return nil
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	return os.WriteFile(filepath.Join(dir, name+".json"), raw, 0o644)
}

// Load reads a file; one that is not there is empty.
func Load(path string) (File, error) {
	f := File{Machine: map[string]string{}, Sets: map[string]Set{}}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &f)
	}
	if err != nil {
		return f, fmt.Errorf("read %s: %w", path, err)
	}
	return f, nil
}

// Merge puts the sets that a run left in dir in the place of older ones.
func (f *File) Merge(dir string, machine map[string]string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var s Set
		if err := json.Unmarshal(raw, &s); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		name := filepath.Base(path)
		f.Sets[name[:len(name)-len(".json")]] = s
	}
	maps.Copy(f.Machine, machine)
	return nil
}

// Save writes the file.
func (f File) Save(path string) error {
	raw, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o644)
}
