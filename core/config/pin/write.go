package pin

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/agentlab/agentlab/core/config"
	"github.com/agentlab/agentlab/sdk/fault"
)

// write gives the text with the pins in it. Only the lines of the pins change,
// and where the text was formatted as HCL usually is, the lines that are aligned
// with them.
func write(text []byte, pins []Pin) ([]byte, error) {
	out := text
	for _, p := range pins {
		var err error
		if out, err = writeOne(out, p); err != nil {
			return nil, err
		}
	}
	if bytes.Equal(hclwrite.Format(text), text) {
		out = hclwrite.Format(out)
	}
	return out, verify(out, pins)
}

// verify reads what was written: an unusual text must not be broken.
func verify(text []byte, pins []Pin) error {
	cfg, diags := config.Parse(text, "")
	if diags.HasErrors() || cfg == nil {
		return fault.New(fault.Unsupported, "the text would not be read any more").WithHint("write sha256 by hand")
	}
	for _, p := range pins {
		ok := false
		for _, b := range cfg.Plugins {
			ok = ok || b.Kind == p.Kind && b.Name == p.Name && b.SHA256 == p.SHA256
		}
		if !ok {
			return fault.New(fault.Unsupported, "plugin %s %s cannot be pinned", p.Kind, p.Name).WithHint("write sha256 = %q by hand", p.SHA256)
		}
	}
	return nil
}

func writeOne(text []byte, p Pin) ([]byte, error) {
	if p.Fits() {
		return text, nil
	}
	block, err := find(text, p)
	if err != nil {
		return nil, err
	}
	quoted := fmt.Sprintf("%q", p.SHA256)
	if a := block.Body.Attributes["sha256"]; a != nil {
		return splice(text, a.Expr.Range().Start.Byte, a.Expr.Range().End.Byte, quoted), nil
	}
	open, end := block.OpenBraceRange.End.Byte, block.CloseBraceRange.Start.Byte
	line := "sha256 = " + quoted
	if bytes.IndexByte(text[open:end], '\n') < 0 { // all on one line
		inner := strings.TrimSpace(string(text[open:end]))
		if inner != "" {
			inner = "  " + inner + "\n"
		}
		return splice(text, open, end, "\n"+inner+"  "+line+"\n"), nil
	}
	at := open // behind the line of path, or else the first of the block
	if a := block.Body.Attributes["path"]; a != nil && a.SrcRange.Start.Line == a.SrcRange.End.Line {
		at = a.SrcRange.End.Byte
	}
	at += bytes.IndexByte(text[at:], '\n')
	return splice(text, at, at, "\n"+indent(text, block)+line), nil
}

// indent is that of the first thing in the block.
func indent(text []byte, block *hclsyntax.Block) string {
	first := hcl.Pos{Line: 1 << 30}
	for _, a := range block.Body.Attributes {
		if a.SrcRange.Start.Line < first.Line {
			first = a.SrcRange.Start
		}
	}
	for _, b := range block.Body.Blocks {
		if b.TypeRange.Start.Line < first.Line {
			first = b.TypeRange.Start
		}
	}
	before := text[:first.Byte]
	blank := before[bytes.LastIndexByte(before, '\n')+1:]
	if len(blank) == 0 || len(bytes.TrimSpace(blank)) > 0 {
		return "  "
	}
	return string(blank)
}

func find(text []byte, p Pin) (*hclsyntax.Block, error) {
	file, diags := hclsyntax.ParseConfig(text, "", hcl.InitialPos)
	if diags.HasErrors() {
		return nil, fault.New(fault.Unsupported, "the text cannot be read any more").WithHint("write sha256 = %q by hand", p.SHA256)
	}
	for _, b := range file.Body.(*hclsyntax.Body).Blocks {
		if b.Type == "plugin" && len(b.Labels) == 2 && b.Labels[0] == p.Kind && b.Labels[1] == p.Name {
			return b, nil
		}
	}
	return nil, fault.New(fault.Internal, "the block of plugin %s %s is gone", p.Kind, p.Name)
}

func splice(text []byte, from, to int, by string) []byte {
	return bytes.Join([][]byte{text[:from], []byte(by), text[to:]}, nil)
}

// replace puts content in the place of the file.
func replace(path string, content []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".agentlab-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		err = errors.Join(err, tmp.Chown(int(st.Uid), int(st.Gid)))
	}
	err = errors.Join(err, tmp.Chmod(info.Mode().Perm()), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
