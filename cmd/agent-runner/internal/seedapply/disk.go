package seedapply

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kdomanski/iso9660"

	"github.com/agentlab/agentlab/cmd/agent-runner/internal/layout"
	"github.com/agentlab/agentlab/core/seed"
	"github.com/agentlab/agentlab/sdk/channel"
	"github.com/agentlab/agentlab/sdk/fault"
)

// Positions in an ISO 9660 volume descriptor, in bytes.
const (
	descriptorAt = 16 * 2048
	labelAt      = descriptorAt + 40
	labelLength  = 32
)

// maxFile is the greatest size of one of the seed's files, in bytes.
const maxFile = 1 << 20

// findDisk gives the device that holds a seed, else one that holds a template's
// label, or "" when there is none. Links made by udev are tried first, then every
// block device the kernel has.
func findDisk(l layout.Layout) (path string, template bool) {
	candidates := []string{l.At("/dev/disk/by-id/virtio-seed"), l.At("/dev/sr0")}
	entries, _ := os.ReadDir(l.At("/sys/class/block"))
	for _, e := range entries {
		candidates = append(candidates, l.At("/dev/"+strings.ReplaceAll(e.Name(), "!", "/")))
	}
	for _, c := range candidates {
		switch label := volumeLabel(c); {
		case strings.EqualFold(label, seed.Label):
			return c, false
		case label == channel.TemplateLabel:
			path, template = c, true
		}
	}
	return path, template
}

// awaitDisk looks for the disk until wait has passed: a CD-ROM may be found by
// the kernel only after this program starts.
func awaitDisk(ctx context.Context, l layout.Layout, wait time.Duration) (path string, template bool) {
	for deadline := time.Now().Add(wait); ; {
		path, template = findDisk(l)
		if path != "" || !time.Now().Before(deadline) {
			return path, template
		}
		select {
		case <-ctx.Done():
			return "", false
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// volumeLabel gives the label of an ISO 9660 volume, "" where there is none.
func volumeLabel(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	var head [labelAt + labelLength - descriptorAt]byte
	if _, err := f.ReadAt(head[:], descriptorAt); err != nil || head[0] != 1 || string(head[1:6]) != "CD001" {
		return ""
	}
	return string(bytes.TrimRight(head[labelAt-descriptorAt:], " \x00"))
}

// readDisk reads the documents of a seed from an ISO 9660 volume, with or
// without Rock Ridge names. The reading library is not made for malformed
// volumes, hence the recover.
func readDisk(path string) (docs seed.Documents, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.New(fault.Invalid, "read seed disk: malformed volume: %v", p)
		}
	}()
	f, err := os.Open(path)
	if err != nil {
		return docs, fmt.Errorf("open seed disk: %w", err)
	}
	defer f.Close()
	image, err := iso9660.OpenImage(f)
	if err != nil {
		return docs, fault.New(fault.Invalid, "read seed disk: %w", err)
	}
	root, err := image.RootDir()
	if err != nil {
		return docs, fault.New(fault.Invalid, "read seed disk: %w", err)
	}
	children, err := root.GetChildren()
	if err != nil {
		return docs, fault.New(fault.Invalid, "read seed disk: %w", err)
	}
	for _, child := range children {
		into := document(&docs, child.Name())
		if into == nil || child.IsDir() {
			continue
		}
		if child.Size() > maxFile {
			return docs, fault.New(fault.Invalid, "%s on the seed disk has %d bytes", child.Name(), child.Size())
		}
		if *into, err = io.ReadAll(child.Reader()); err != nil {
			return docs, fmt.Errorf("read %s: %w", filepath.Base(child.Name()), err)
		}
	}
	return docs, nil
}

// document gives the place for a file of this name. Without Rock Ridge a name
// is in upper case, without dashes, and cut to eight characters or more.
func document(d *seed.Documents, name string) *[]byte {
	plain := strings.Map(func(r rune) rune {
		if slices.Contains([]rune("-_. "), r) {
			return -1
		}
		return r
	}, strings.ToLower(name))
	for full, into := range map[string]*[]byte{"userdata": &d.UserData, "metadata": &d.MetaData, "networkconfig": &d.NetworkConfig} {
		if len(plain) >= 7 && strings.HasPrefix(full, plain) {
			return into
		}
	}
	return nil
}
