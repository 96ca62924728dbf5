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
	image, err := Render(files)
	if err != nil {
		t.Fatal(err)
	}
	if len(image)%2048 != 0 {
		t.Errorf("image has %d bytes, not whole sectors", len(image))
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
	_, err := Render([]File{{"user-data", make([]byte, maxFile+1)}})
	if !errors.Is(err, fault.Invalid) {
		t.Errorf("err = %v, want invalid", err)
	}
}
