// Package outbound decides which hosts may be sent to, before any use of the network. It is pure: the same rules and host always
// give the same answer, and no name is resolved. What addresses a name may resolve to is judged later, when a connection is made.
package outbound

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"unicode"
)

// MaxReasonLength is the most characters of a reason: what the wire client shows of it.
const MaxReasonLength = 200

// Action says what happens to a request. The zero value is none: a rule must say what it does.
type Action string

// The actions.
const (
	Allow Action = "allow"
	Deny  Action = "deny"
)

// Any is the host, or the scheme, of a rule that holds for all of them.
const Any = "*"

// Rule says what happens to the requests that it matches.
type Rule struct {
	// Action is what happens to them.
	Action Action
	// Host is what the host must be: an IP address; a name, in which "*" stands for any characters inside one label, none
	// included, or as the first label for one or more labels, so that *.example.org is everything below example.org and not
	// example.org itself; or "*" alone, which is any host. Only "*" and the address itself match an address. Case, a dot at the
	// end and the brackets of an IPv6 address do not count. Names beyond ASCII are compared as they are written.
	Host string
	// Scheme is http, https or [Any]. Empty means [Any].
	Scheme string
	// Reason is what a refusal says. At most [MaxReasonLength] printable characters. Empty says which rule it is.
	Reason string
}

// Policy is an ordered list of rules: the first one that matches holds, or the default. Make one with [New]; the zero value allows
// everything. It never changes, so it is safe for concurrent use.
type Policy struct {
	rules    []rule
	fallback error // of the default; nil allows
}

// rule is a [Rule] that can be asked.
type rule struct {
	host    string // canonical
	addr    netip.Addr
	name    *regexp.Regexp // nil for an address
	scheme  string
	refusal error // nil allows
}

// RuleError is what is wrong with one rule.
type RuleError struct {
	// Index is the rule's place in the list, from 0.
	Index int
	// Field is what to change: "action", "host", "scheme" or "reason".
	Field string
	// Problem says what is wrong with the field and what to do, without naming it: "is empty: ...".
	Problem string
}

// Error returns the problem with the rule's place and the field.
func (e *RuleError) Error() string {
	return fmt.Sprintf("outbound: rules[%d].%s %s", e.Index, e.Field, e.Problem)
}

// New returns the policy of the rules. It refuses a default or an action that is neither [Allow] nor [Deny], a host, scheme or
// reason that is none, and a rule that can never match because an earlier one has its host, or any, and its scheme, or any. The
// error joins ([errors.Join]) one [*RuleError] for each problem of a rule.
func New(fallback Action, rules []Rule) (Policy, error) {
	var p Policy
	var problems []error
	switch fallback {
	case Allow:
	case Deny:
		p.fallback = errors.New("no rule allows it")
	default:
		problems = append(problems, fmt.Errorf("outbound: default is %.20q: want allow or deny", string(fallback)))
	}
	for i, r := range rules {
		checked, errs := newRule(i, r)
		for j, earlier := range p.rules {
			if len(errs) == 0 && earlier.covers(checked) {
				errs = append(errs, &RuleError{i, "host", fmt.Sprintf("can never match: rules[%d] takes all that it would;"+
					" put this rule before that one, or remove it", j)})
				break
			}
		}
		problems = append(problems, errs...)
		p.rules = append(p.rules, checked)
	}
	if err := errors.Join(problems...); err != nil {
		return Policy{}, err
	}
	return p, nil
}

func newRule(index int, r Rule) (rule, []error) {
	var problems []error
	refuse := func(field, format string, args ...any) {
		problems = append(problems, &RuleError{index, field, fmt.Sprintf(format, args...)})
	}
	result := rule{host: canonical(r.Host), scheme: strings.ToLower(r.Scheme)}
	if result.scheme == "" {
		result.scheme = Any
	}
	switch result.scheme {
	case "http", "https", Any:
	default:
		refuse("scheme", `is %.20q: want http, https or "*"`, r.Scheme)
	}
	switch r.Action {
	case Allow:
	case Deny:
		reason := r.Reason
		if reason == "" {
			reason = fmt.Sprintf("rule %d denies %s", index+1, result.host)
		}
		result.refusal = errors.New(reason)
	case "":
		refuse("action", "is empty: want allow or deny")
	default:
		refuse("action", "is %.20q: want allow or deny", string(r.Action))
	}
	if len([]rune(r.Reason)) > MaxReasonLength || strings.ContainsFunc(r.Reason, func(c rune) bool { return !unicode.IsPrint(c) }) {
		refuse("reason", "is not shown: want at most %d printable characters on one line", MaxReasonLength)
	}
	if addr, err := netip.ParseAddr(result.host); err == nil {
		result.addr = plain(addr)
		return result, problems
	}
	if problem := hostProblem(result.host); problem != "" {
		refuse("host", "%s", problem)
	}
	result.name = hostPattern(result.host)
	return result, problems
}

// hostProblem returns what is wrong with a host, "" if nothing. Most texts are hosts to a policy, since one that cannot be parsed is
// matched as it is; but what looks like something else by mistake would protect nobody.
func hostProblem(host string) string {
	switch {
	case host == "":
		return `is empty: write a host name, an IP address or "*" for any`
	case len(host) > 2048:
		return "has more than 2048 characters: want a host name"
	case strings.Contains(host, "**"):
		return "has two * in a row: write one, which as the first label is any number of labels, and elsewhere any text inside one"
	case host != Any && strings.Trim(host, "0123456789.*") == "" && strings.Contains(host, "*"):
		return "looks like a part of an IP address: only whole addresses are compared"
	}
	return ""
}

// hostPattern returns what matches the hosts of a glob, in their canonical form.
func hostPattern(host string) *regexp.Regexp {
	if host == Any {
		return regexp.MustCompile(`(?s)\A.*\z`)
	}
	rest, below := strings.CutPrefix(host, "*.")
	pattern := strings.ReplaceAll(regexp.QuoteMeta(rest), `\*`, `[^.]*`)
	if below {
		pattern = `.+\.` + pattern
	}
	return regexp.MustCompile(`(?s)\A` + pattern + `\z`)
}

// covers reports whether other can never match because r takes all that it would. Globs are compared by their text, except "*".
func (r rule) covers(other rule) bool {
	sameHost := r.host == Any || r.host == other.host || r.addr.IsValid() && r.addr == other.addr
	return sameHost && (r.scheme == Any || r.scheme == other.scheme)
}

func (r rule) match(scheme, host string, addr netip.Addr) bool {
	switch {
	case r.scheme != Any && r.scheme != scheme:
		return false
	case r.host == Any:
		return true
	case r.addr.IsValid() || addr.IsValid():
		return r.addr == addr
	}
	return r.name.MatchString(host)
}

// Check returns nil if requests to the host may be sent by the scheme, and otherwise an error whose text is the reason alone. A
// host that cannot be parsed is compared as the whole text, as everything else in it. It takes any text.
func (p Policy) Check(scheme, host string) error {
	scheme, host = strings.ToLower(scheme), canonical(host)
	addr, err := netip.ParseAddr(host)
	if err == nil {
		addr = plain(addr)
	}
	for _, r := range p.rules {
		if r.match(scheme, host, addr) {
			return r.refusal
		}
	}
	return p.fallback
}

// canonical returns the host in lower case, without a dot at its end and without brackets around an IPv6 address. What is no
// UTF-8 in it becomes U+FFFD.
func canonical(host string) string {
	host = strings.TrimSuffix(strings.ToValidUTF8(strings.ToLower(host), "\uFFFD"), ".")
	inner, opened := strings.CutPrefix(host, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if opened && closed && strings.Contains(inner, ":") {
		return inner
	}
	return host
}

// plain returns the address as which the network takes addr: an IPv4 address that is written as an IPv6 one is the IPv4 address.
func plain(addr netip.Addr) netip.Addr { return addr.WithZone("").Unmap() }
