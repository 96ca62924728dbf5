package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
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
		"\x1b[30;40ma\nb\x1b[31m\nc":                   "\x1b[30;40ma\x1b[0m\nb\nc",
		"\x1b[8ma\x1b[1;08;4mb\x1b[;8mc":               "a\x1b[1;4mb\x1b[mc",
		"\x1b[38;5;8ma\x1b[48;2;1;2;8;8;1mb":           "\x1b[38;5;8ma\x1b[48;2;1;2;8;1mb",
		"\x1b[38;8ma\x1b[38mb\x1b[48;2;1;8mc":          "abc",
		"\x1b[58;5;8ma\x1b[11mb\x1b[8:1mc\x1b[4:3md":   "abc\x1b[4:3md",
	} {
		for cut := range len(in) + 1 {
			var out bytes.Buffer
			s := &screen{w: &out}
			for _, part := range []string{in[:cut], in[cut:]} {
				if n, err := s.Write([]byte(part)); n != len(part) || err != nil {
					t.Fatalf("%q: wrote %d, %v", in, n, err)
				}
				if _, left := painted(out.String()); left != "" {
					t.Errorf("%q cut at %d leaves %q to others", in, cut, left)
				}
			}
			got, _ := painted(out.String())
			if want, _ := painted(want); got != want {
				t.Errorf("%q cut at %d:\ngot  %q\nwant %q", in, cut, got, want)
			}
		}
	}
}

// However many colours an agent asks for, their end is shown.
func TestScreenEndsColours(t *testing.T) {
	var out bytes.Buffer
	if _, err := (&screen{w: &out}).Write([]byte(strings.Repeat("\x1b[1m", 600) + "a\x1b[mb")); err != nil {
		t.Fatal(err)
	}
	if got, _ := painted(out.String()); !strings.HasSuffix(got, ">ab") || len(got) > 1000 {
		t.Errorf("%q", got)
	}
}

// painted writes the colours in force in front of each character, and gives
// those after the last one.
func painted(s string) (all, left string) {
	for len(s) > 0 {
		if params, ok := strings.CutPrefix(s, "\x1b["); ok && strings.Contains(params, "m") {
			params, s, _ = strings.Cut(params, "m")
			if left += "<" + params + ">"; strings.Trim(params, "0;") == "" {
				left = ""
			}
			continue
		}
		_, n := utf8.DecodeRuneInString(s)
		all += left + s[:n]
		s = s[n:]
	}
	return all, left
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
