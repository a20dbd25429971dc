package quorum

import (
	"errors"
	"fmt"
	"time"
)

// Rule says how a write is judged.
type Rule struct {
	// Writes is how many members must hold the write.
	Writes Writes
	// AckTimeout is how long after its start a fan-out takes acknowledgements. More than 0.
	AckTimeout time.Duration
}

// NamespaceRule is the rule of the namespaces that a glob matches. Segments of a namespace are separated by "/". In a glob, "*"
// stands for any characters inside one segment, none included, and as a whole segment for exactly one; "**" as the last segment
// stands for any number of segments, none included: "prod/**" matches prod and all below it, "**" everything. Every other
// character stands for itself; case counts.
type NamespaceRule struct {
	// Glob is the pattern, 1 to [MaxGlobLength] characters.
	Glob string
	// Rule is what holds where the glob matches. Nothing in it is taken from the defaults.
	Rule Rule
}

// Rules says by which rule the writes of a namespace are judged: the first one whose glob matches, or the defaults. Make one
// with [NewRules]; the zero value knows only a zero default. It never changes, so it is safe for concurrent use.
type Rules struct {
	rules []Rule // the defaults, then one for each of globs
	globs []glob
}

// RuleError is what is wrong with one rule.
type RuleError struct {
	// Index is the rule's number as [Rules.Match] would return it: 0 for the defaults, 1 for the first rule.
	Index int
	// Field is what to change: "glob" or "ack_timeout".
	Field string
	// Problem says what is wrong with the field and what to do, without naming it: "is empty: ...".
	Problem string
	// Earlier is the index of the rule that leaves this one nothing to match; 0 if that is not the problem.
	Earlier int
}

// Error returns the problem with the rule's number and the field.
func (e *RuleError) Error() string {
	return fmt.Sprintf("quorum: rule %d: %s %s", e.Index, e.Field, e.Problem)
}

// NewRules returns the rules in the order given. It refuses a glob that is none, one that is there twice or that an earlier one
// covers, so that its rule could never hold, and an ack timeout of 0 or less. The error joins ([errors.Join]) one [*RuleError]
// for each problem.
//
// A glob is compared with each earlier one alone: what only several earlier ones cover together is not found.
func NewRules(defaults Rule, rules []NamespaceRule) (Rules, error) {
	r := Rules{rules: []Rule{defaults}}
	var problems []error
	refuse := func(index int, field, problem string, earlier int) {
		problems = append(problems, &RuleError{Index: index, Field: field, Problem: problem, Earlier: earlier})
	}
	if defaults.AckTimeout <= 0 {
		refuse(0, "ack_timeout", timeoutProblem(defaults.AckTimeout), 0)
	}
	for i, rule := range rules {
		index := i + 1
		if rule.Rule.AckTimeout <= 0 {
			refuse(index, "ack_timeout", timeoutProblem(rule.Rule.AckTimeout), 0)
		}
		g, err := parseGlob(rule.Glob)
		if err != nil {
			refuse(index, "glob", err.Error(), 0)
			g = glob{} // keeps the place, and covers nothing that can be parsed
		} else if earlier := r.coveredBy(g); earlier > 0 {
			refuse(index, "glob", coverProblem(rule.Glob, rules[earlier-1].Glob), earlier)
		}
		r.rules = append(r.rules, rule.Rule)
		r.globs = append(r.globs, g)
	}
	if err := errors.Join(problems...); err != nil {
		return Rules{}, err
	}
	return r, nil
}

func timeoutProblem(d time.Duration) string { return fmt.Sprintf("is %s: want more than 0s", d) }

func coverProblem(text, earlier string) string {
	if text == earlier {
		return "is there already: remove one of the two rules"
	}
	return fmt.Sprintf("can never match: the earlier glob %.60q takes all that it would; put this rule before that one, or remove it", earlier)
}

// coveredBy returns the index of the first rule that covers g, 0 if there is none.
func (r Rules) coveredBy(g glob) int {
	for i, earlier := range r.globs {
		if earlier.covers(g) {
			return i + 1
		}
	}
	return 0
}

// Match returns the index of the rule for a namespace: i for the i-th rule, counted from 1, and 0 for the defaults. It takes
// any text and allocates nothing.
func (r Rules) Match(namespace string) int {
	for i, g := range r.globs {
		if g.match(namespace) {
			return i + 1
		}
	}
	return 0
}

// Rule returns the rule of an index that [Rules.Match] returned, or that is below [Rules.Len]. It panics for any other.
func (r Rules) Rule(index int) Rule {
	if index == 0 && len(r.rules) == 0 {
		return Rule{}
	}
	return r.rules[index]
}

// Len returns the number of rules, the defaults included: at least 1, and one more than the greatest index.
func (r Rules) Len() int { return max(1, len(r.rules)) }

// MaxAckTimeout returns the longest ack timeout of all rules, the defaults included.
func (r Rules) MaxAckTimeout() time.Duration {
	var longest time.Duration
	for _, rule := range r.rules {
		longest = max(longest, rule.AckTimeout)
	}
	return longest
}
