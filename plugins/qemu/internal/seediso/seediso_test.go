package seediso

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/kdomanski/iso9660"

	"github.com/agentlab/agentlab/sdk/fault"
)

// The reader is the one the guest uses, so names and bytes are those it sees.
func TestRenderIsReadByTheGuestsReader(t *testing.T) {
	want := map[string]string{
		"user-data":      "#cloud-config\n" + strings.Repeat("x", 5000),
		"meta-data":      `{"instance-id":"sbx_1"}`,
		"network-config": strings.Repeat("n", 2048),
	}
	var files []File
	for name, body := range want {
		files = append(files, File{name, []byte(body)})
	}
	image, err := Render(Seed, files)
	if err != nil {
		t.Fatal(err)
	}
	if len(image) != Bytes {
		t.Errorf("image has %d bytes, not the size that every other has", len(image))
	}
	back := map[string]string{}
	parsed, err := Parse(image)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range parsed {
		back[f.Name] = string(f.Body)
	}
	if diff := cmp.Diff(want, back); diff != "" {
		t.Errorf("parsed: %s", diff)
	}
	opened, err := iso9660.OpenImage(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	if label, err := opened.Label(); err != nil || label != "cidata" {
		t.Errorf("label = %q, %v", label, err)
	}
	root, err := opened.RootDir()
	if err != nil {
		t.Fatal(err)
	}
	children, err := root.GetChildren()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range children {
		body, err := io.ReadAll(c.Reader())
		if err != nil {
			t.Fatal(err)
		}
		got[c.Name()] = string(body)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestRenderRefusesLargeDocuments(t *testing.T) {
	_, err := Render(Seed, []File{{"user-data", make([]byte, maxFile+1)}})
	if !errors.Is(err, fault.Invalid) {
		t.Errorf("err = %v, want invalid", err)
	}
}

// A guest that took its QEMU over may have written anything there.
func TestParseOfDamagedImages(t *testing.T) {
	good, err := Render(Seed, []File{{"meta-data", []byte("m")}, {"user-data", []byte("u")}})
	if err != nil {
		t.Fatal(err)
	}
	const root = rootAt * sector
	for name, damage := range map[string]func(b []byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"cut":       func(b []byte) []byte { return b[:root+100] },
		"short":     func(b []byte) []byte { b[root] = 1; return b },
		"long name": func(b []byte) []byte { b[root+68+32] = 255; return b },
		"far":       func(b []byte) []byte { copy(b[root+68+2:], "\xff\xff\xff\xff"); return b },
		"endless": func(b []byte) []byte {
			for at := root; at < root+sector; at += 34 {
				b[at] = 34
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			if files, err := Parse(damage(bytes.Clone(good))); !errors.Is(err, fault.Invalid) {
				t.Errorf("files %v, err %v", files, err)
			}
		})
	}
}

func TestTemplateLabel(t *testing.T) {
	image, err := Render(Template, nil)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := iso9660.OpenImage(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	if label, err := opened.Label(); err != nil || label != Template || len(image) != Bytes {
		t.Errorf("label %q of %d bytes, %v", label, len(image), err)
	}
}
