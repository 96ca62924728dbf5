package guestapi

import (
	"errors"
	"path"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	longestPath = 1024 // bytes
	longestName = 255
	deepest     = 32 // parts
)

// CleanPath makes a relative, slash separated path of the name of an artifact,
// or refuses it. The log and the archive have their names to themselves.
func CleanPath(raw string) (string, error) {
	bad := func(why string) (string, error) {
		return "", errors.New("path of the file " + why)
	}
	switch {
	case raw == "":
		return bad("is empty")
	case len(raw) > longestPath:
		return bad("is too long")
	case !utf8.ValidString(raw) || strings.ContainsFunc(raw, func(r rune) bool { return r == '\\' || !unicode.IsPrint(r) }):
		return bad("has characters that are not allowed")
	case strings.HasPrefix(raw, "/"):
		return bad("is not relative")
	}
	for part := range strings.SplitSeq(raw, "/") {
		if part == ".." {
			return bad("leaves its directory")
		}
		if len(part) > longestName {
			return bad("has a part that is too long")
		}
	}
	p := path.Clean(raw)
	if p == "." || !filepath.IsLocal(p) {
		return bad("names no file")
	}
	first, _, _ := strings.Cut(p, "/")
	if first == ArtifactLog || first == ArtifactArchive {
		return bad("is reserved")
	}
	if strings.Count(p, "/") >= deepest {
		return bad("is too deep")
	}
	return p, nil
}
