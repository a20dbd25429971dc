package quorum_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/quorum"
)

// rule is one as an operator writes it.
func rule(tb testing.TB, writes string, seconds int) quorum.Rule {
	tb.Helper()
	w, err := quorum.ParseWrites(writes)
	if err != nil {
		tb.Fatal(err)
	}
	return quorum.Rule{Writes: w, AckTimeout: time.Duration(seconds) * time.Second}
}

func newRules(tb testing.TB, globs ...string) (quorum.Rules, error) {
	tb.Helper()
	var rules []quorum.NamespaceRule
	for i, glob := range globs {
		rules = append(rules, quorum.NamespaceRule{Glob: glob, Rule: rule(tb, "all", i+1)})
	}
	return quorum.NewRules(rule(tb, "majority", 1), rules)
}

func TestRulesGlob(t *testing.T) {
	t.Parallel()
	tests := []struct {
		glob string
		fits []string
		not  []string
	}{
		{"prod", []string{"prod"}, []string{"", "Prod", "prod/a", "produce", "a/prod", "pro", "prod/"}},
		{"prod/a", []string{"prod/a"}, []string{"prod", "prod/b", "prod/a/b", "prod/a/"}},
		{"*", []string{"a", "prod", ""}, []string{"a/b", "a/"}},
		{"*/a", []string{"x/a", "y/a"}, []string{"a", "x/b", "x/y/a"}},
		{"prod/*", []string{"prod/a", "prod/b"}, []string{"prod", "prod/a/b", "test/a"}},
		{"prod/*/logs", []string{"prod/a/logs"}, []string{"prod/logs", "prod/a/b/logs", "prod/a/log"}},
		{"team-*", []string{"team-", "team-a", "team-a-b"}, []string{"team", "team-a/b", "my-team-a"}},
		{"*-log", []string{"-log", "a-log", "a-log-log"}, []string{"a-logs", "a/b-log"}},
		{"a*b*c", []string{"abc", "aXbYc", "abcbc", "abbc"}, []string{"acb", "ab", "abcd", "a/bc"}},
		{"*ab*", []string{"ab", "aab", "xabx", "aaab"}, []string{"a", "ba", "axb"}},
		{"prod/**", []string{"prod", "prod/a", "prod/a/b/c/d/e/f/g"}, []string{"", "produce", "produce/a", "a/prod"}},
		{"*/a/**", []string{"x/a", "x/a/b"}, []string{"x", "x/b", "a"}},
		{"team-*/**", []string{"team-a", "team-a/b"}, []string{"team", "a/team-a"}},
		{"**", []string{"", "a", "a/b/c", "/", "\x00\xff"}, nil},
		{"a?[b]{c}", []string{"a?[b]{c}"}, []string{"axb", "ab"}},
		{"日*語", []string{"日本語", "日語"}, []string{"日本", "日/語"}},
	}
	for _, tt := range tests {
		t.Run(tt.glob, func(t *testing.T) {
			t.Parallel()
			rules, err := newRules(t, tt.glob)
			if err != nil {
				t.Fatal(err)
			}
			for _, namespace := range tt.fits {
				if got := rules.Match(namespace); got != 1 {
					t.Errorf("%q: got %d, want a match", namespace, got)
				}
			}
			for _, namespace := range tt.not {
				if got := rules.Match(namespace); got != 0 {
					t.Errorf("%q: got %d, want no match", namespace, got)
				}
			}
		})
	}
}

// The first rule that matches holds, however exact a later one is; without any the defaults do.
func TestRulesFirstMatchHolds(t *testing.T) {
	t.Parallel()
	defaults, strict, loose := rule(t, "majority", 2), rule(t, "all", 9), rule(t, "1", 1)
	rules, err := quorum.NewRules(defaults, []quorum.NamespaceRule{
		{Glob: "prod/*/logs", Rule: loose}, {Glob: "prod/**", Rule: strict}, {Glob: "*/scratch", Rule: loose},
	})
	if err != nil {
		t.Fatal(err)
	}
	for namespace, want := range map[string]int{"prod/a/logs": 1, "prod/a": 2, "prod": 2, "prod/scratch": 2, "dev/scratch": 3, "dev": 0, "": 0} {
		if got := rules.Match(namespace); got != want {
			t.Errorf("%q: got %d, want %d", namespace, got, want)
		}
	}
	var got []quorum.Rule
	for i := range rules.Len() {
		got = append(got, rules.Rule(i))
	}
	want := []quorum.Rule{defaults, loose, strict, loose}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b quorum.Writes) bool { return a == b })); d != "" {
		t.Errorf("rules (-want +got):\n%s", d)
	}
	if got, want := rules.MaxAckTimeout(), 9*time.Second; got != want {
		t.Errorf("longest ack timeout: got %s, want %s", got, want)
	}
}

func TestRulesWithoutRules(t *testing.T) {
	t.Parallel()
	want := rule(t, "2", 3)
	rules, err := quorum.NewRules(want, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := rules.Rule(rules.Match("any")); got != want || rules.Len() != 1 || rules.MaxAckTimeout() != want.AckTimeout {
		t.Errorf("got %v of %d, longest %s, want only %v", got, rules.Len(), rules.MaxAckTimeout(), want)
	}
	var zero quorum.Rules
	if zero.Match("any") != 0 || zero.Len() != 1 || zero.Rule(0) != (quorum.Rule{}) || zero.MaxAckTimeout() != 0 {
		t.Error("the zero Rules do not consist of a zero default")
	}
}

func TestRulesRefuse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		globs   []string
		index   int
		earlier int
		want    string
	}{
		{"empty", []string{""}, 1, 0, "is empty"},
		{"slash at the start", []string{"/a"}, 1, 0, "empty segment"},
		{"slash at the end", []string{"a", "a/"}, 2, 0, "empty segment"},
		{"two slashes", []string{"a//b"}, 1, 0, "empty segment"},
		{"only slash and stars", []string{"/**"}, 1, 0, "empty segment"},
		{"dot", []string{"a/./b"}, 1, 0, ". or .."},
		{"dots", []string{"../a"}, 1, 0, ". or .."},
		{"two stars at the start", []string{"**/a"}, 1, 0, "other than its last segment"},
		{"two stars in the middle", []string{"a/**/b"}, 1, 0, "other than its last segment"},
		{"two stars in a segment", []string{"a**"}, 1, 0, "other than its last segment"},
		{"two stars twice", []string{"**/**"}, 1, 0, "other than its last segment"},
		{"three stars", []string{"a/***"}, 1, 0, "other than its last segment"},
		{"blank", []string{"a b"}, 1, 0, "blank"},
		{"control character", []string{"a\x1b"}, 1, 0, "control character"},
		{"backslash", []string{`a\*`}, 1, 0, "backslash"},
		{"no UTF-8", []string{"a\xff"}, 1, 0, "UTF-8"},
		{"too long", []string{strings.Repeat("é", quorum.MaxGlobLength+1)}, 1, 0, "more than 512 characters"},
		{"twice", []string{"a/*", "b", "a/*"}, 3, 1, "is there already"},
		{"after everything", []string{"b", "**", "a"}, 3, 2, `the earlier glob "**" takes all`},
		{"two stars after everything", []string{"**", "a/**"}, 2, 1, "can never match"},
		{"everything, twice in other words", []string{"*/**", "**"}, 2, 1, "can never match"},
		{"below a covered folder", []string{"prod/**", "prod/a/*"}, 2, 1, `"prod/**"`},
		{"the folder itself", []string{"prod/**", "prod"}, 2, 1, `"prod/**"`},
		{"one segment among all", []string{"prod/*", "prod/a"}, 2, 1, `"prod/*"`},
		{"a part among all", []string{"team-*", "team-a*"}, 2, 1, `"team-*"`},
		{"stars at two places", []string{"*b*", "a*b"}, 2, 1, `"*b*"`},
		{"first of two that cover", []string{"a/**", "*/**", "a/b"}, 3, 1, `"a/**"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := newRules(t, tt.globs...)
			if err == nil {
				t.Fatalf("got %v, want an error", got)
			}
			problem, ok := errors.AsType[*quorum.RuleError](err)
			if !ok || problem.Index != tt.index || problem.Earlier != tt.earlier || problem.Field != "glob" {
				t.Errorf("got %+v, want rule %d, earlier %d", problem, tt.index, tt.earlier)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
		})
	}
}

// Globs that overlap, or are covered by later ones, have something to match.
func TestRulesAccept(t *testing.T) {
	t.Parallel()
	for _, globs := range [][]string{
		{"prod/a", "prod/*", "prod/**", "*/*", "**"},
		{"a*", "*b"},
		{"a*b", "ab*", "*ab"},
		{"prod/*", "prod/**"},
		{"prod/*/**", "prod/**"},
		{"*", "**"},
		{"a/*", "*/a"},
		{"prod/**", "produce/**"},
		{strings.Repeat("é", quorum.MaxGlobLength)},
	} {
		if _, err := newRules(t, globs...); err != nil {
			t.Errorf("%q: %v", globs, err)
		}
	}
}

func TestRulesNameAllProblems(t *testing.T) {
	t.Parallel()
	_, err := quorum.NewRules(rule(t, "all", 0), []quorum.NamespaceRule{
		{Glob: "**", Rule: rule(t, "all", -1)}, {Glob: "/", Rule: rule(t, "all", 1)}, {Glob: "a", Rule: rule(t, "all", 1)},
	})
	for _, want := range []string{
		"quorum: rule 0: ack_timeout is 0s: want more than 0s", "quorum: rule 1: ack_timeout is -1s", "quorum: rule 2: glob has an empty segment",
		"quorum: rule 3: glob can never match",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
}

// Not parallel: it counts the allocations of the whole program.
func TestRulesMatchAllocatesNothing(t *testing.T) {
	rules, err := newRules(t, "prod/*/logs", "team-*/**", "a*b*c/**")
	if err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(100, func() { rules.Match("team-a/b/c"); rules.Match("aXbXc"); rules.Match("none/of/them") }); got != 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}
