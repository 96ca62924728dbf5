package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestScreen(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext\r\nünï ✓ 漢\n":                     "plain\ttext\r\nünï ✓ 漢\n",
		"\x1b[1;31mred\x1b[0m \x1b[38:5:9mx\x1b[m":     "\x1b[1;31mred\x1b[0m \x1b[38:5:9mx\x1b[m",
		"a\x1b[2Jb\x1b[Hc\x1b[10;10Hd\x1b[Ke":          "abcde",
		"a\x1b]0;title\x07b":                           "ab",
		"a\x1b]52;c;aGk=\x1b\\b":                       "ab",
		"a\x1b]8;;http://evil/\x1b\\link\x1b]8;;\x07b": "alinkb",
		"a\x1bP1$r0m\x1b\\b\x1b_x\x1b\\c\x1b^y\x1b\\d": "abcd",
		"a\x1bcb\x1b7c\x1b(0d\x1b#8e":                  "abcde",
		"a\x1b[?1049hb\x1b[6nc\x1b[>0md":               "abcd",
		"a\u009b2Jb\u009b31mc\u009d0;t\u009cd":         "ab\x1b[31mcd",
		"bell\x07 back\b del\x7f nul\x00":              "bell back del nul",
		"evil\u202egnp.exe \u2066x\u2069 \u200ey":      "evilgnp.exe x y",
		"a\x1b]never ended\nb":                         "a\nb",
		"a\x1b[\nb\x1b\nc":                             "a\nb\nc",
		"a\x1b[31\x1b[0mb":                             "a\x1b[0mb",
		"a\x1b]0;x\x1b[31mb\x1b\x1b[0mc":               "a\x1b[31mb\x1b[0mc",
		"a\x1b[" + strings.Repeat("1;", 99) + "mb":     "ab",
		"raw \x9b2J \xff":                              "raw \ufffd2J \ufffd",
	} {
		for cut := range len(in) + 1 {
			var out bytes.Buffer
			s := &screen{w: &out}
			for _, part := range []string{in[:cut], in[cut:]} {
				if n, err := s.Write([]byte(part)); n != len(part) || err != nil {
					t.Fatalf("%q: wrote %d, %v", in, n, err)
				}
			}
			if got := out.String(); got != want {
				t.Errorf("%q cut at %d:\ngot  %q\nwant %q", in, cut, got, want)
			}
		}
	}
}

const hostile = "a\nb\tc\x1b[2J\u009b31m\x07\u202ed\x00e\x7f"

func TestOneLine(t *testing.T) {
	if got := oneLine(hostile); got != "a b c[2J31mde" {
		t.Errorf("%q", got)
	}
	if got := lines("one\n" + "two\x1b]0;x\x07\n"); got != "one\ntwo]0;x" {
		t.Errorf("%q", got)
	}
}

// JSON keeps the text and shows a terminal none of it.
func TestPlainJSON(t *testing.T) {
	var out bytes.Buffer
	if err := writeJSON(&out, map[string]string{"<k>": hostile}, ""); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsFunc(strings.TrimSuffix(out.String(), "\n"), harmful) || !strings.Contains(out.String(), "<k>") {
		t.Errorf("%q", out.String())
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["<k>"] != hostile {
		t.Errorf("%q, %v", back, err)
	}
}
