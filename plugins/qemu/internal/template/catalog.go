package template

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/agentlab/agentlab/sdk/fault"
)

// Catalog knows where image folders are. It is read anew on every call, so an
// image built later needs no restart.
type Catalog struct {
	Folders []string // each an image folder; they win over Parent's
	Parent  string   // its children are image folders; "" for none
}

// Entry is one folder, usable when Err is nil.
type Entry struct {
	Template
	Err      error
	Shadowed bool // another folder of the same VMID or name is taken instead
}

// List gives every folder once, broken ones too, those that win first.
func (c Catalog) List() ([]Entry, error) {
	var out []Entry
	for _, dir := range c.Folders {
		t, err := Load(dir)
		out = append(out, Entry{Template: t, Err: err})
	}
	children, err := c.children()
	if err != nil {
		return nil, err
	}
	for _, e := range children {
		if !c.named(e.Dir) {
			out = append(out, e)
		}
	}
	vmids, names := map[uint32]bool{}, map[string]bool{}
	for i := range out {
		e := &out[i]
		if e.Err != nil {
			continue
		}
		e.Shadowed = vmids[e.VMID] || names[e.Name]
		vmids[e.VMID], names[e.Name] = true, true
	}
	return out, nil
}

// named reports whether dir is one of Folders, maybe by another path: Parent may
// hold them, too, and a folder does not stand in its own way.
func (c Catalog) named(dir string) bool {
	at, err := os.Stat(dir)
	return err == nil && slices.ContainsFunc(c.Folders, func(folder string) bool {
		other, err := os.Stat(folder)
		return err == nil && os.SameFile(at, other)
	})
}

// children lists Parent's image folders, newest first: a rebuilt image lies
// beside the one that older VMs still depend on.
func (c Catalog) children() ([]Entry, error) {
	if c.Parent == "" {
		return nil, nil
	}
	items, err := os.ReadDir(c.Parent)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "list templates: %w", err)
	}
	var out []Entry
	for _, item := range items {
		dir := filepath.Join(c.Parent, item.Name())
		// A folder without a manifest is something else, or not finished.
		if _, err := os.Lstat(filepath.Join(dir, manifestName)); err != nil || strings.HasPrefix(item.Name(), ".") {
			continue
		}
		t, err := Load(dir)
		out = append(out, Entry{Template: t, Err: err})
	}
	slices.SortStableFunc(out, func(a, b Entry) int { return b.Modified.Compare(a.Modified) })
	return out, nil
}

// Find looks a template up by VMID in digits or by name. Errors: NotFound with
// the names there are; Precondition when the only match is broken.
func (c Catalog) Find(ref string) (Template, error) {
	entries, err := c.List()
	if err != nil {
		return Template{}, err
	}
	var known []string
	var broken error
	for _, e := range entries {
		match := e.Name == ref || (e.VMID != 0 && strconv.FormatUint(uint64(e.VMID), 10) == ref)
		switch {
		case e.Err == nil && match && !e.Shadowed:
			return e.Template, nil
		case e.Err == nil && !e.Shadowed:
			known = append(known, strconv.FormatUint(uint64(e.VMID), 10)+" ("+e.Name+")")
		case match && e.Err != nil:
			broken = e.Err
		}
	}
	if broken != nil {
		return Template{}, fault.New(fault.Precondition, "template %q is broken: %w", ref, broken).
			WithHint("build the image again")
	}
	missing := fault.New(fault.NotFound, "template %q does not exist", ref)
	if len(known) == 0 {
		return Template{}, missing.WithHint("there is no template yet: build the guest image, or set templates or template_dir of the qemu plugin")
	}
	return Template{}, missing.WithHint("known templates: %s", strings.Join(known, ", "))
}
