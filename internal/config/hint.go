package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// safeName returns key, unless it does not look like a name: then it may be a value that slipped out of its place.
func safeName(key string) string {
	if regexp.MustCompile(`^[A-Za-z0-9_.-]{1,60}$`).MatchString(key) {
		return key
	}
	return fmt.Sprintf("(a key of %d bytes that is not shown)", len(key))
}

// hint returns which of known the writer of name may have meant.
func hint(name string, known []string) string {
	slices.Sort(known)
	best, bestDistance := "", max(2, len(name)/4)+1
	for _, candidate := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(candidate)); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("did you mean %s?", best)
	case len(known) <= 16:
		return "known here are " + strings.Join(known, ", ")
	default:
		return "see docs/configuration.md for the names"
	}
}

// distance returns how many characters have to be added, removed or replaced to turn a into b (Levenshtein). Names
// longer than any key are not compared.
func distance(a, b string) int {
	if len(a) > 100 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
