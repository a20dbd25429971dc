package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"quorumbox/internal/outbound"
	"quorumbox/quorum"
)

// NamespaceRule is the quorum of the namespaces that a glob matches.
type NamespaceRule struct {
	// Glob is the pattern; see [quorum.NamespaceRule].
	Glob string `koanf:"glob" default:"required" doc:"which namespaces: * is any text inside one segment, or one whole segment; ** at the end is any number of segments, so prod/** is prod and all below it, and ** everything"`
	// Writes is W, as [Quorum.Writes].
	Writes quorum.Writes `koanf:"writes" default:"quorum.writes" doc:"as quorum.writes, for these namespaces"`
	// AckTimeout is as [Quorum.AckTimeout], with the same bounds.
	AckTimeout time.Duration `koanf:"ack_timeout" default:"quorum.ack_timeout" doc:"as quorum.ack_timeout, for these namespaces"`
}

// Outbound says which hosts may be sent to. It is asked before any use of the network; a peer that it refuses does not keep the
// others from being sent to.
type Outbound struct {
	// Default is what happens where no rule matches.
	Default outbound.Action `koanf:"default" doc:"allow or deny: what happens to a request that no rule of outbound.rules matches"`
	// Rules are looked through in their order: the first one that matches holds. 0 to [MaxRules].
	Rules []OutboundRule `koanf:"rules" doc:"which hosts may be sent to, 0 to 100 rules; the first one that matches holds"`
}

// OutboundRule says what happens to the requests that it matches; see [outbound.Rule].
type OutboundRule struct {
	Action outbound.Action `koanf:"action" default:"required" doc:"allow or deny"`
	Host   string          `koanf:"host" default:"required" doc:"host name, IP address, or * for any; in a name * is any text inside one label, and as the first label any number of labels: *.example.org is everything below example.org"`
	Scheme string          `koanf:"scheme" doc:"http, https, or * for both"`
	Reason string          `koanf:"reason" doc:"what the refusal says, at most 200 characters; empty: the number of the rule"`
}

// QuorumRules returns the quorum rules of all namespaces: the index 0 is what quorum.writes and quorum.ack_timeout say, and i the
// i-th of quorum.namespaces.
func (c Config) QuorumRules() (quorum.Rules, error) {
	rules := make([]quorum.NamespaceRule, len(c.Quorum.Namespaces))
	for i, r := range c.Quorum.Namespaces {
		rules[i] = quorum.NamespaceRule{Glob: r.Glob, Rule: quorum.Rule{Writes: r.Writes, AckTimeout: r.AckTimeout}}
	}
	result, err := quorum.NewRules(quorum.Rule{Writes: c.Quorum.Writes, AckTimeout: c.Quorum.AckTimeout}, rules)
	if err != nil {
		return quorum.Rules{}, fmt.Errorf("config: quorum.namespaces: %w", err)
	}
	return result, nil
}

// Policy returns the rules in the form that can be asked.
func (o Outbound) Policy() (outbound.Policy, error) {
	rules := make([]outbound.Rule, len(o.Rules))
	for i, r := range o.Rules {
		rules[i] = outbound.Rule{Action: r.Action, Host: r.Host, Scheme: r.Scheme, Reason: r.Reason}
	}
	policy, err := outbound.New(o.Default, rules)
	if err != nil {
		return outbound.Policy{}, fmt.Errorf("config: %w", err)
	}
	return policy, nil
}

// checkNamespaces judges what the rules have in common with the defaults, and their globs.
func (p *problems) checkNamespaces(c Config) {
	if n := len(c.Quorum.Namespaces); n > MaxRules {
		p.addf("quorum.namespaces has %d rules: want at most %d", n, MaxRules)
		return
	}
	for i, r := range c.Quorum.Namespaces {
		p.checkRule(fmt.Sprintf("quorum.namespaces[%d]", i), r.Writes, r.AckTimeout, c)
	}
	_, err := c.QuorumRules()
	for _, err := range joined(err) {
		if problem, ok := errors.AsType[*quorum.RuleError](err); ok && problem.Field == "glob" {
			text := problem.Problem
			if problem.Earlier > 0 {
				text += fmt.Sprintf(" (the earlier one is quorum.namespaces[%d])", problem.Earlier-1)
			}
			p.addf("quorum.namespaces[%d].glob %s", problem.Index-1, text)
		}
	}
}

// checkOutbound judges the rules, and hosts that could be meant as something else.
func (p *problems) checkOutbound(o Outbound) {
	if o.Default != outbound.Allow && o.Default != outbound.Deny {
		p.addf("outbound.default is %s: want allow or deny", show(string(o.Default)))
		o.Default = outbound.Allow
	}
	if n := len(o.Rules); n > MaxRules {
		p.addf("outbound.rules has %d rules: want at most %d", n, MaxRules)
		return
	}
	for i, r := range o.Rules {
		if !isHost(r.Host) {
			p.addf("outbound.rules[%d].host (not shown) is more than a host: want a host name or IP address without scheme, port and path", i)
		}
	}
	_, err := o.Policy()
	for _, err := range joined(err) {
		if problem, ok := errors.AsType[*outbound.RuleError](err); ok {
			p.addf("outbound.rules[%d].%s %s", problem.Index, problem.Field, problem.Problem)
		}
	}
}

// isHost reports whether text has nothing of a URL but the host.
func isHost(text string) bool {
	if _, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return true
	}
	return !strings.ContainsAny(text, "/:@?# \t")
}

// joined returns the errors that [errors.Join] joined somewhere in err.
func joined(err error) []error {
	for ; err != nil; err = errors.Unwrap(err) {
		if list, ok := err.(interface{ Unwrap() []error }); ok {
			return list.Unwrap()
		}
	}
	return nil
}
