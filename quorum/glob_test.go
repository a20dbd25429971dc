package quorum

import (
	"regexp"
	"strings"
	"testing"
)

// globOracle is the same glob as a regular expression.
func globOracle(tb testing.TB, text string) *regexp.Regexp {
	tb.Helper()
	body, below := strings.CutSuffix("/"+text, "/**")
	body = strings.TrimPrefix(body, "/")
	pattern := strings.ReplaceAll(regexp.QuoteMeta(body), `\*`, `[^/]*`)
	switch {
	case below && body == "":
		pattern = `.*`
	case below:
		pattern += `(/.*)?`
	}
	return regexp.MustCompile(`(?s)\A` + pattern + `\z`)
}

func FuzzGlob(f *testing.F) {
	for _, text := range []string{"**", "*", "prod/**", "prod/*/logs", "team-*", "a*b*c", "*ab*/x", "**/a", "a//b", "日*語"} {
		for _, namespace := range []string{"", "prod/a/logs", "team-a", "abcbc", "aab/x", "日本語", "a\xffb", "/"} {
			f.Add(text, namespace)
		}
	}
	f.Fuzz(func(t *testing.T, text, namespace string) {
		g, err := parseGlob(text)
		if err != nil || strings.ContainsRune(namespace, '\uFFFD') || strings.ToValidUTF8(namespace, "") != namespace {
			g.match(namespace) // must return
			return
		}
		if got, want := g.match(namespace), globOracle(t, text).MatchString(namespace); got != want {
			t.Errorf("%q matches %q: got %t, want %t", text, namespace, got, want)
		}
		if !g.covers(g) || !g.match(strings.ReplaceAll(g.path, "*", "x")) {
			t.Errorf("%q does not match what it says", text)
		}
	})
}

// A glob covers another exactly if it matches everything that the other does: tried with all namespaces of a small world, which
// has a letter that no glob names.
func TestGlobCovers(t *testing.T) {
	t.Parallel()
	globs := paths([]string{"a", "b", "*", "a*", "*b", "a*b", "*a*"}, 2)
	for _, text := range globs {
		globs = append(globs, text+"/**")
	}
	globs = append(globs, "**")
	namespaces := paths([]string{"", "a", "b", "z", "ab", "az", "zb", "za", "azb", "zaz", "zzz", "aab"}, 3)

	matches := make([][]bool, len(globs))
	parsed := make([]glob, len(globs))
	for i, text := range globs {
		g, err := parseGlob(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		parsed[i] = g
		for _, namespace := range namespaces {
			matches[i] = append(matches[i], g.match(namespace))
		}
	}
	for i := range globs {
		for j := range globs {
			want := true
			for k := range namespaces {
				want = want && (matches[i][k] || !matches[j][k])
			}
			if got := parsed[i].covers(parsed[j]); got != want {
				t.Errorf("%q covers %q: got %t, want %t", globs[i], globs[j], got, want)
			}
		}
	}
}

// paths returns all paths of 1 to depth of the segments.
func paths(segments []string, depth int) []string {
	all := append([]string(nil), segments...)
	for last := all; depth > 1; depth-- {
		var next []string
		for _, path := range last {
			for _, segment := range segments {
				next = append(next, path+"/"+segment)
			}
		}
		all, last = append(all, next...), next
	}
	return all
}
