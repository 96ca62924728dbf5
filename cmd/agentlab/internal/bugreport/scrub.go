package bugreport

import (
	"bytes"
	"regexp"
	"slices"

	"github.com/agentlab/agentlab/sdk/secret"
)

const mask = secret.Mask

// Private keys, also those whose beginning or end was cut off.
var (
	wholeKey  = regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)`)
	keysEnd   = regexp.MustCompile(`(?s)\A.*-----END [A-Z0-9 ]*PRIVATE KEY-----`)
	keysWords = []byte("PRIVATE KEY-----")
)

// rule replaces what looks like a secret within a line.
type rule struct {
	words   []string // lower case; a line without any is not looked at: most are not
	pattern *regexp.Regexp
	with    string
}

var rules = []rule{
	{[]string{"://"}, regexp.MustCompile(`\b([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s"'<>@]+@`), "${1}" + mask + "@"},
	{[]string{"://"}, regexp.MustCompile(`\b([a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'<>?#\\]*)[?#][^\s"'<>\\]+`), "${1}?" + mask},
	{[]string{"bearer", "basic", "token"}, regexp.MustCompile(`(?i)\b(bearer|basic|token)(\s+)[a-z0-9._~+/=-]{12,}`), "${1}${2}" + mask},
	{
		[]string{"token", "secret", "passw", "passphrase", "key", "credential"},
		regexp.MustCompile(`(?i)((?:token|secret|passwo?r?d|passphrase|api[_-]?key|access[_-]?key|auth[_-]?key|private[_-]?key|credential)[a-z0-9_-]*` +
			`\\?["']?\s*(?:[:=]|=>)\s*\\?["']?)[^\s"'\\,;&{}\[\]]{4,}`), "${1}" + mask,
	},
	{
		[]string{"gh", "github_pat_", "glpat-", "sk-", "xox", "akia", "asia", "aiza", "tskey-", "npm_", "hf_", "pypi-", "dop_v1_", "age-secret-key-", "eyj"},
		regexp.MustCompile(`\b(gh[opusr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|xox[abeoprs]-[\w-]{10,}` +
			`|A(?:KIA|SIA)[0-9A-Z]{16}|AIza[\w-]{30,}|tskey-[a-z]+-[\w-]{8,}|npm_\w{30,}|hf_\w{20,}|pypi-[\w-]{20,}|dop_v1_[0-9a-f]{20,}` +
			`|AGE-SECRET-KEY-[0-9A-Z-]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)`), mask,
	},
}

// scrub removes known secrets and what looks like one.
func scrub(known *secret.Redactor, text []byte) []byte {
	text = known.Bytes(text)
	if bytes.Contains(text, keysWords) {
		text = wholeKey.ReplaceAll(text, []byte(mask))
		text = keysEnd.ReplaceAll(text, []byte(mask))
	}
	var out bytes.Buffer
	for line := range bytes.Lines(text) {
		out.Write(scrubLine(line))
	}
	return known.Bytes(out.Bytes()) // a replacement may have joined two halves
}

func scrubLine(line []byte) []byte {
	lower := bytes.ToLower(line)
	for _, r := range rules {
		if slices.ContainsFunc(r.words, func(w string) bool { return bytes.Contains(lower, []byte(w)) }) {
			line = r.pattern.ReplaceAll(line, []byte(r.with))
		}
	}
	return line
}

// tail keeps the newest whole lines of text, at most n bytes.
func tail(text []byte, n int) []byte {
	if len(text) <= n {
		return text
	}
	text = text[len(text)-n:]
	if i := bytes.IndexByte(text, '\n'); i >= 0 {
		return text[i+1:]
	}
	return nil // the rest of one line could be the rest of a secret
}
