package outbound_test

import (
	"errors"
	"strings"
	"testing"

	"quorumbox/internal/outbound"
)

func policy(tb testing.TB, fallback outbound.Action, rules ...outbound.Rule) outbound.Policy {
	tb.Helper()
	p, err := outbound.New(fallback, rules)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// Checklist row 14: a host is refused by name or address and by scheme.
func TestCheckHost(t *testing.T) {
	t.Parallel()
	tests := []struct {
		host string // of the rule
		fits []string
		not  []string
	}{
		{"peer.example.org", []string{"peer.example.org", "PEER.Example.ORG", "peer.example.org."}, []string{"peer.example.or", "a.peer.example.org", "peerXexample.org", "peer.example.org..", ""}},
		{"Peer.Example.Org.", []string{"peer.example.org"}, []string{"peer"}},
		{"*.example.org", []string{"a.example.org", "a.b.example.org", "A.Example.Org."}, []string{"example.org", "aexample.org", ".example.org", "a.example.org.evil.test"}},
		{"db-*.example.org", []string{"db-.example.org", "db-1.example.org"}, []string{"db-1.x.example.org", "db.example.org", "x.db-1.example.org"}},
		{"*-db.example.org", []string{"a-db.example.org"}, []string{"a.b-db.example.org", "db.example.org"}},
		{"*.*.example.org", []string{"a.b.example.org", "a.b.c.example.org"}, []string{"a.example.org"}},
		{"fe80*", []string{"fe80", "fe80-a"}, []string{"fe80::1", "[fe80::1]"}},
		{"peer-*", []string{"peer-1", "peer-"}, []string{"peer-1.example.org"}},
		{"*", []string{"a", "a.b.c", "10.0.0.1", "::1", "", "not a host", "日本"}, nil},
		{"10.0.0.1", []string{"10.0.0.1", "::ffff:10.0.0.1", "[::ffff:a00:1]", "10.0.0.1."}, []string{"10.0.0.2", "10.0.0.1.example.org", "::10.0.0.1"}},
		{"[2001:DB8::1]", []string{"2001:db8::1", "[2001:db8::1]", "2001:db8:0:0::1", "2001:db8::1%eth0"}, []string{"2001:db8::2", "2001:db8::1]"}},
		{"::ffff:10.0.0.1", []string{"10.0.0.1"}, []string{"10.0.0.2"}},
		{"bücher.example", []string{"bücher.example", "BÜCHER.example"}, []string{"xn--bcher-kva.example"}},
		{"xn--bcher-kva.example", []string{"XN--bcher-kva.example"}, []string{"bücher.example"}},
	}
	for _, tt := range tests {
		t.Run(tt.host, func(t *testing.T) {
			t.Parallel()
			p := policy(t, outbound.Allow, outbound.Rule{Action: outbound.Deny, Host: tt.host})
			for _, host := range tt.fits {
				if err := p.Check("https", host); err == nil {
					t.Errorf("%q: got no error, want a refusal", host)
				}
			}
			for _, host := range tt.not {
				if err := p.Check("https", host); err != nil {
					t.Errorf("%q: got %v, want none", host, err)
				}
			}
		})
	}
}

// Checklist row 15: a host that cannot be parsed is compared as the whole text.
func TestCheckTextThatIsNoHost(t *testing.T) {
	t.Parallel()
	const text = "http://u@[bad host:%zz/"
	p := policy(t, outbound.Allow,
		outbound.Rule{Action: outbound.Deny, Host: text, Reason: "exact"},
		outbound.Rule{Action: outbound.Deny, Host: "::bad*", Reason: "glob"})
	for host, want := range map[string]string{text: "exact", strings.ToUpper(text): "exact", "::bad:://": "glob", "http://u@": "", "[bad host": ""} {
		got := ""
		if err := p.Check("", host); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", host, got, want)
		}
	}
}

func TestCheckScheme(t *testing.T) {
	t.Parallel()
	p := policy(t, outbound.Allow,
		outbound.Rule{Action: outbound.Allow, Host: "inner.example", Scheme: "HTTP"},
		outbound.Rule{Action: outbound.Deny, Host: "*", Scheme: "http", Reason: "plain text"},
		outbound.Rule{Action: outbound.Deny, Host: "evil.example", Reason: "evil"})
	tests := []struct{ scheme, host, want string }{
		{"http", "inner.example", ""},
		{"http", "a.example", "plain text"},
		{"HTTP", "a.example", "plain text"},
		{"https", "a.example", ""},
		{"https", "evil.example", "evil"},
		{"http", "evil.example", "plain text"},
		{"ftp", "evil.example", "evil"},
	}
	for _, tt := range tests {
		got := ""
		if err := p.Check(tt.scheme, tt.host); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s://%s: got %q, want %q", tt.scheme, tt.host, got, tt.want)
		}
	}
}

// The text is the reason alone; whoever asked puts the host before it.
func TestCheckReason(t *testing.T) {
	t.Parallel()
	p := policy(t, outbound.Deny,
		outbound.Rule{Action: outbound.Allow, Host: "good.example", Reason: "not used"},
		outbound.Rule{Action: outbound.Deny, Host: "a.example", Reason: "a says no"},
		outbound.Rule{Action: outbound.Deny, Host: "*.B.example"})
	for host, want := range map[string]string{"a.example": "a says no", "x.b.example": "rule 3 denies *.b.example", "c.example": "no rule allows it"} {
		if err := p.Check("https", host); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", host, err, want)
		}
	}
	if err := p.Check("https", "good.example"); err != nil {
		t.Errorf("good.example: got %v, want none", err)
	}
}

func TestZeroPolicyAllows(t *testing.T) {
	t.Parallel()
	if err := (outbound.Policy{}).Check("http", "any"); err != nil {
		t.Errorf("got %v, want none", err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	deny := func(host string) outbound.Rule { return outbound.Rule{Action: outbound.Deny, Host: host} }
	tests := []struct {
		name  string
		rules []outbound.Rule
		index int
		field string
		want  string
	}{
		{"no action", []outbound.Rule{{Host: "a"}}, 0, "action", "is empty: want allow or deny"},
		{"another action", []outbound.Rule{{Action: "block", Host: "a"}}, 0, "action", `is "block"`},
		{"no host", []outbound.Rule{deny("a"), deny("")}, 1, "host", "is empty"},
		{"host that is a dot", []outbound.Rule{deny(".")}, 0, "host", "is empty"},
		{"two stars", []outbound.Rule{deny("**.example.org")}, 0, "host", "two * in a row"},
		{"part of an address", []outbound.Rule{deny("10.0.0.*")}, 0, "host", "whole addresses"},
		{"end of an address", []outbound.Rule{deny("*.1")}, 0, "host", "whole addresses"},
		{"very long host", []outbound.Rule{deny(strings.Repeat("a", 2049))}, 0, "host", "2048"},
		{"another scheme", []outbound.Rule{{Action: outbound.Deny, Host: "a", Scheme: "ftp"}}, 0, "scheme", `is "ftp"`},
		{"reason of two lines", []outbound.Rule{{Action: outbound.Deny, Host: "a", Reason: "x\ny"}}, 0, "reason", "printable"},
		{"long reason", []outbound.Rule{{Action: outbound.Deny, Host: "a", Reason: strings.Repeat("x", 201)}}, 0, "reason", "200"},
		{"host twice", []outbound.Rule{deny("a.example"), deny("b"), deny("A.example.")}, 2, "host", "rules[0] takes all"},
		{"address twice", []outbound.Rule{deny("::ffff:10.0.0.1"), deny("10.0.0.1")}, 1, "host", "can never match"},
		{"after everything", []outbound.Rule{deny("*"), {Action: outbound.Allow, Host: "a", Scheme: "http"}}, 1, "host", "rules[0]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := outbound.New(outbound.Allow, tt.rules)
			problem, ok := errors.AsType[*outbound.RuleError](err)
			if !ok || problem.Index != tt.index || problem.Field != tt.field || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, %v, want an error at rules[%d].%s with %q", got, err, tt.index, tt.field, tt.want)
			}
		})
	}
	for _, fallback := range []outbound.Action{"", "ALLOW"} {
		if _, err := outbound.New(fallback, nil); err == nil || !strings.Contains(err.Error(), "default is") {
			t.Errorf("default %q: got %v, want an error", fallback, err)
		}
	}
}

// Rules that overlap have something to match.
func TestNewAccepts(t *testing.T) {
	t.Parallel()
	rules := []outbound.Rule{
		{Action: outbound.Allow, Host: "a.example", Scheme: "https"},
		{Action: outbound.Deny, Host: "a.example"},
		{Action: outbound.Deny, Host: "*.example", Reason: strings.Repeat("é", 200)},
		{Action: outbound.Deny, Host: "*", Scheme: "http"},
		{Action: outbound.Allow, Host: "*"},
	}
	if _, err := outbound.New(outbound.Deny, rules); err != nil {
		t.Error(err)
	}
}

func TestNewNamesAllProblems(t *testing.T) {
	t.Parallel()
	_, err := outbound.New("maybe", []outbound.Rule{{Action: "x", Host: "", Scheme: "y", Reason: "\n"}, {Host: "a"}})
	for _, want := range []string{"default", "rules[0].action", "rules[0].host", "rules[0].scheme", "rules[0].reason", "rules[1].action"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %s", err, want)
		}
	}
}

// Whatever the text, one host gets one answer however it is written, and a rule for exactly that text takes it.
func FuzzCheck(f *testing.F) {
	for _, host := range []string{"a.example", "[::1]", "::1%x", "10.0.0.1", "日本.", "a b", "", "x\xff", "[a]", "*", "a*b"} {
		f.Add("*.example", "https", host)
		f.Add(host, "http", host)
	}
	f.Fuzz(func(t *testing.T, glob, scheme, host string) {
		p, err := outbound.New(outbound.Allow, []outbound.Rule{{Action: outbound.Deny, Host: glob}})
		if err != nil {
			return
		}
		got := p.Check(scheme, host)
		if again := p.Check(strings.ToUpper(scheme), strings.ToLower(host)+"."); !strings.HasSuffix(host, ".") && (got == nil) != (again == nil) {
			t.Errorf("%q: got %v, in lower case with a dot %v", host, got, again)
		}
		if got == nil && glob == host && !strings.ContainsAny(glob, "*") {
			t.Errorf("%q is not matched by itself", host)
		}
	})
}
