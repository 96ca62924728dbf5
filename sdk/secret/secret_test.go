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

// A value is seen wherever it stands in a text that was encoded as a whole, as
// in the header of basic authentication.
func TestRedactorSeesInsideBase64(t *testing.T) {
	const plain = "ghp_~~~???s3cr3t"
	r := secret.NewRedactor(secret.New(plain))
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		for before := range 7 {
			for after := range 7 {
				in := enc.EncodeToString([]byte("user:xy"[:before] + plain + "@host.x"[:after]))
				got := r.String("Basic " + in + ";")
				shown := len(strings.Replace(got, secret.Mask, "", 1)) - len("Basic ;")
				// At most 4 bits of the value at either end are in a character
				// that it shares.
				if hidden := len(in) - shown; !strings.Contains(got, secret.Mask) || 6*hidden < 8*len(plain)-8 {
					t.Errorf("%d bytes before and %d after: %q gives %q", before, after, in, got)
				}
			}
		}
	}
	if got := r.String(base64.StdEncoding.EncodeToString([]byte("user:harmless-text"))); strings.Contains(got, secret.Mask) {
		t.Errorf("harmless text gives %q", got)
	}
}
