package upload

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/agentlab/agentlab/sdk/fault"
	"github.com/agentlab/agentlab/sdk/secret"
)

// MostFiles is how many files a job may leave.
const MostFiles = 990

// File is one artifact.
type File struct {
	Path string // relative to the artifacts directory, slash separated
	Size int64
}

// List gives the regular files below root, in order, and how many other things
// (links, pipes, devices) were passed over. Links are never followed.
// fault.Exhausted: there are more than MostFiles, of which it gives the first.
func List(root *os.Root) (files []File, passed int, err error) {
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		st, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			passed++
			return nil
		}
		if len(files) == MostFiles {
			return fault.New(fault.Exhausted, "the job left more than %d files", MostFiles)
		}
		files = append(files, File{path, st.Size()})
		return nil
	})
	if err != nil {
		return files, passed, fmt.Errorf("list artifacts: %w", err)
	}
	return files, passed, nil
}

// open opens one file for reading, and refuses what has become something else.
func open(root *os.Root, path string) (*os.File, int64, error) {
	f, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("open artifact: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("open artifact %s: %w", path, err)
	}
	return f, st.Size(), nil
}

// Holds reports whether the file contains a value that r knows, as plain text.
func Holds(root *os.Root, path string, r *secret.Redactor) (bool, error) {
	f, _, err := open(root, path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	find := r.Finder()
	buf := make([]byte, 256<<10)
	for !find.Found() {
		n, err := f.Read(buf)
		_, _ = find.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, fmt.Errorf("scan artifact: %w", err)
		}
	}
	return find.Found(), nil
}
