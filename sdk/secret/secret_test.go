package secret_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/agentlab/agentlab/sdk/secret"
)

func TestValueNeverPrints(t *testing.T) {
	const plain = "hunter2-hunter2"
	v := secret.New(plain)
	j, err := json.Marshal(map[string]any{"v": v, "p": &v})
	if err != nil {
		t.Fatal(err)
	}
	type holder struct{ V secret.Value }
	for _, s := range []string{
		fmt.Sprint(v), fmt.Sprintf("%s %v %+v %#v %q %x", v, v, v, v, v, v),
		fmt.Sprintf("%+v %#v", holder{v}, &holder{v}), string(j),
	} {
		if strings.Contains(s, plain) || strings.Contains(s, fmt.Sprintf("%x", plain)) {
			t.Errorf("printed: %s", s)
		}
		if !strings.Contains(s, secret.Mask) {
			t.Errorf("no mask in %s", s)
		}
	}
	if v.Reveal() != plain {
		t.Error("Reveal lost the value")
	}
}

func TestRedactor(t *testing.T) {
	const plain = "s3cr3t/+value\"x"
	key := "-----BEGIN KEY-----\nAAAABBBBCCCCDDDDEEEE\nFFFFGGGGHHHHIIIIJJJJ\n-----END KEY-----"
	r := secret.NewRedactor(secret.New(plain), secret.New(key), secret.New("no"))
	j, _ := json.Marshal(plain)
	for _, in := range []string{
		"token=" + plain + ";",
		"b64 " + base64.StdEncoding.EncodeToString([]byte(plain)),
		"json " + string(j),
		"line FFFFGGGGHHHHIIIIJJJJ end",
	} {
		if got := r.String(in); !strings.Contains(got, secret.Mask) || strings.Contains(got, plain) {
			t.Errorf("String(%q) = %q", in, got)
		}
	}
	if got := r.String("no secret here"); got != "no secret here" {
		t.Errorf("short value was redacted: %q", got)
	}
}
