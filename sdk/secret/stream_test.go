package secret_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/agentlab/agentlab/sdk/secret"
)

func redactIn(r *secret.Redactor, pieces ...string) string {
	s := r.Stream()
	var out strings.Builder
	for _, p := range pieces {
		out.Write(s.Next([]byte(p)))
	}
	out.Write(s.End())
	return out.String()
}

func TestStreamExamples(t *testing.T) {
	r := secret.NewRedactor(secret.New("abcdef12"), secret.New("ef12ghij"), secret.New("aaaaaaaa"))
	for _, c := range []struct {
		pieces []string
		want   string
	}{
		{[]string{"x abcdef12 y"}, "x [REDACTED] y"},
		{[]string{"x abc", "def", "12 y"}, "x [REDACTED] y"},
		{[]string{"x abc", "xyz"}, "x abcxyz"},
		{[]string{"abcdef12", "ghij!"}, "[REDACTED]!"},
		{[]string{"abcdef12", "gh!"}, "[REDACTED]gh!"},
		{[]string{"aaaaaa", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "b"}, "[REDACTED]b"},
		{[]string{"end abcdef1"}, "end [REDACTED]"},
		{[]string{"end abc"}, "end abc"},
	} {
		if got := redactIn(r, c.pieces...); got != c.want {
			t.Errorf("%q gives %q, want %q", c.pieces, got, c.want)
		}
		if got := r.String(strings.Join(c.pieces, "")); got != c.want {
			t.Errorf("%q at once gives %q, want %q", c.pieces, got, c.want)
		}
	}
}

func TestStreamHoldsBackOnlyBeginnings(t *testing.T) {
	s := secret.NewRedactor(secret.New("secret-value")).Stream()
	if got := string(s.Next([]byte("prompt> "))); got != "prompt> " || s.Held() != 0 {
		t.Errorf("wrote %q, held %d", got, s.Held())
	}
	if got := string(s.Next([]byte("is it sec"))); got != "is it " || s.Held() != 3 {
		t.Errorf("wrote %q, held %d", got, s.Held())
	}
}

// However a text is cut or given at once, the same comes out, and no secret in
// it.
func TestStreamIsIndependentOfCuts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[ab]{6,9}`)
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		r := secret.NewRedactor(secret.New(a), secret.New(b))
		text := rapid.StringMatching(`[abc]{0,80}`).Draw(t, "text")
		var pieces []string
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		whole, cut := r.String(text), redactIn(r, pieces...)
		if whole != cut {
			t.Fatalf("%q gives %q whole and %q in pieces %q", text, whole, cut, pieces)
		}
		if strings.Contains(cut, a) || strings.Contains(cut, b) {
			t.Fatalf("secret %q or %q in %q", a, b, cut)
		}
		if !r.Contains([]byte(text)) && !strings.HasPrefix(text, strings.TrimSuffix(cut, secret.Mask)) {
			t.Fatalf("%q became %q", text, cut)
		}
	})
}
