package quorum

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxGlobLength is the most characters of a glob. A namespace has no more.
const MaxGlobLength = 512

// glob is a parsed pattern of namespaces. The zero value matches only the empty namespace.
type glob struct {
	// path is the pattern without "/**" at its end.
	path string
	// below also takes everything below path.
	below bool
}

// parseGlob reads a glob over namespaces, whose segments are separated by "/":
//   - "*" stands for any characters inside one segment, none included; as a whole segment for exactly one segment;
//   - "**" as the last segment stands for any number of segments, none included: "prod/**" matches prod and all below it;
//   - every other character, "?" and "[" among them, stands for itself. Case counts.
func parseGlob(text string) (glob, error) {
	switch {
	case text == "":
		return glob{}, errors.New("is empty: write ** for every namespace")
	case !utf8.ValidString(text):
		return glob{}, errors.New("is no UTF-8 text: no namespace could match")
	case utf8.RuneCountInString(text) > MaxGlobLength:
		return glob{}, fmt.Errorf("has more than %d characters: no namespace is as long", MaxGlobLength)
	case strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '\\' }):
		return glob{}, errors.New("has a blank, a backslash or a control character: no namespace has one")
	}
	if text == "**" {
		text = "*/**" // the same, since a namespace has at least one segment
	}
	path, below := strings.CutSuffix(text, "/**")
	for segment := range strings.SplitSeq(path, "/") {
		switch {
		case segment == "":
			return glob{}, errors.New("has an empty segment: remove the / at its start, its end or beside another /")
		case segment == ".", segment == "..":
			return glob{}, errors.New("has a . or .. segment: no namespace has one")
		case strings.Contains(segment, "**"):
			return glob{}, errors.New("has ** in a place other than its last segment: write * there, which is any one segment")
		}
	}
	return glob{path: path, below: below}, nil
}

// match reports whether the namespace fits. It is total and allocates nothing.
func (g glob) match(namespace string) bool {
	pattern := g.path
	for {
		want, patternRest, morePattern := strings.Cut(pattern, "/")
		got, namespaceRest, moreNamespace := strings.Cut(namespace, "/")
		switch {
		case !matchSegment(want, got):
			return false
		case !morePattern:
			return !moreNamespace || g.below
		case !moreNamespace:
			return false
		}
		pattern, namespace = patternRest, namespaceRest
	}
}

// covers reports whether every namespace that other matches is matched by g. Read as a namespace, other's path has "*" as a
// character that only a "*" of g can stand for; and whatever that stands for, other's "*" may stand for as well.
func (g glob) covers(other glob) bool {
	return g.match(other.path) && (g.below || !other.below)
}

// matchSegment reports whether the segment fits a pattern whose only special character is "*". It goes back to the last "*"
// alone, so it takes at most len(pattern) * len(segment) steps.
func matchSegment(pattern, segment string) bool {
	star, mark := -1, 0 // where the last "*" is, and the first byte of segment that it does not stand for
	p, s := 0, 0
	for s < len(segment) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, s
			p++
		case p < len(pattern) && pattern[p] == segment[s]:
			p++
			s++
		case star >= 0:
			mark++
			p, s = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
