package identity_test

import (
	"crypto/ed25519"
	"math"
	"strings"
	"testing"
	"time"

	"quorumbox/internal/identity"
)

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	change := func(c identity.Claims, f func(*identity.Claims)) identity.Claims {
		f(&c)
		return c
	}
	inter := issue(t, rootKey(), interClaims())
	leaf := issue(t, interKey(), leafClaims())
	rootLeaf := issue(t, rootKey(), claims())
	third := seeded(0x60)
	lower := change(interClaims(), func(c *identity.Claims) {
		c.IssuerID, c.SubjectAgentID, c.SubjectKey = "region/a/ca", "site/1/ca", publicOf(third)
	})
	deep := identity.Chain{inter, issue(t, interKey(), lower)}
	deepLeaf := issue(t, third, change(leafClaims(), func(c *identity.Claims) { c.IssuerID = "site/1/ca" }))

	for _, test := range []struct {
		name    string
		leaf    identity.Credential
		chain   identity.Chain
		options func(*identity.Options)
		want    identity.Tag // "" for none
	}{
		{name: "root-signed leaf", leaf: rootLeaf},
		{name: "leaf with an intermediate", leaf: leaf, chain: identity.Chain{inter}},
		{name: "any trust domain", leaf: leaf, chain: identity.Chain{inter}, options: func(o *identity.Options) { o.TrustDomain = "" }},
		{name: "three deep if allowed", leaf: deepLeaf, chain: deep, options: func(o *identity.Options) { o.MaxDepth = 3 }},
		{name: "first second", leaf: rootLeaf, options: func(o *identity.Options) { o.Now = time.Unix(1899999990, 0) }},
		{name: "last second", leaf: rootLeaf, options: func(o *identity.Options) { o.Now = time.Unix(1900003600, 999) }},

		{name: "no credential", want: identity.TagMalformed},
		{name: "chain with nothing in it", leaf: leaf, chain: identity.Chain{{}}, want: identity.TagMalformed},
		{name: "second before", leaf: rootLeaf, options: func(o *identity.Options) { o.Now = time.Unix(1899999989, 0) }, want: identity.TagNotYetValid},
		{name: "second after", leaf: rootLeaf, options: func(o *identity.Options) { o.Now = time.Unix(1900003601, 0) }, want: identity.TagExpired},
		{name: "now is the time of the call", leaf: rootLeaf, options: func(o *identity.Options) { o.Now = time.Time{} }, want: identity.TagNotYetValid},
		{name: "unknown issuer", leaf: leaf, want: identity.TagUnknownIssuer},
		{name: "no bundle", leaf: rootLeaf, options: func(o *identity.Options) { o.Bundle = nil }, want: identity.TagUnknownIssuer},
		{
			name: "short key in the bundle", leaf: rootLeaf,
			options: func(o *identity.Options) { o.Bundle = map[string]ed25519.PublicKey{"root": {1}} }, want: identity.TagUnknownIssuer,
		},
		{name: "another trust domain", leaf: rootLeaf, options: func(o *identity.Options) { o.TrustDomain = "x" }, want: identity.TagWrongTrustDomain},
		{
			name: "another root of that name", leaf: rootLeaf,
			options: func(o *identity.Options) { o.Bundle["root"] = publicOf(third) }, want: identity.TagBadSignature,
		},
		{name: "three deep", leaf: deepLeaf, chain: deep, want: identity.TagChainTooDeep},
		{name: "one deep allowed", leaf: leaf, chain: identity.Chain{inter}, options: func(o *identity.Options) { o.MaxDepth = 1 }, want: identity.TagChainTooDeep},
		{name: "leaf of another issuer", leaf: rootLeaf, chain: identity.Chain{inter}, want: identity.TagChainNameMismatch},
		{
			name: "leaf signed by another key", leaf: issue(t, third, leafClaims()), chain: identity.Chain{inter}, want: identity.TagBadSignature,
		},
		{
			name: "anchor that the root has not signed", leaf: leaf, chain: identity.Chain{issue(t, third, interClaims())}, want: identity.TagBadSignature,
		},
		{
			name: "leaf of another domain", chain: identity.Chain{inter}, want: identity.TagChainDomainMismatch,
			leaf: issue(t, interKey(), change(leafClaims(), func(c *identity.Claims) { c.TrustDomain = "other.example" })),
		},
		{
			name: "anchor of another domain", leaf: leaf, want: identity.TagWrongTrustDomain,
			chain: identity.Chain{issue(t, rootKey(), change(interClaims(), func(c *identity.Claims) { c.TrustDomain = "other.example" }))},
		},
		{
			name: "expired intermediate", leaf: leaf, want: identity.TagExpired,
			chain: identity.Chain{issue(t, rootKey(), change(interClaims(), func(c *identity.Claims) { c.NotAfter = c.NotBefore }))},
		},
		{
			name: "expired leaf", chain: identity.Chain{inter}, want: identity.TagExpired,
			leaf: issue(t, interKey(), change(leafClaims(), func(c *identity.Claims) { c.NotAfter = c.NotBefore })),
		},
		{
			name: "intermediate of the future", leaf: leaf, want: identity.TagNotYetValid,
			chain: identity.Chain{issue(t, rootKey(), change(interClaims(), func(c *identity.Claims) { c.NotBefore = c.NotAfter }))},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := options()
			if test.options != nil {
				test.options(&o)
			}
			err := identity.Verify(test.leaf, test.chain, o)
			if got := identity.TagOf(err); got != test.want || (err == nil) != (test.want == "") {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// A signature covers every byte of the claims.
func TestVerifyTampered(t *testing.T) {
	t.Parallel()
	pairs := with("subject_agent_id", "ai:leadeR")
	tampered := raw(t, pairs...)
	honest := envelopeOf(t, raw(t, claimPairs()...))
	credential, err := identity.Parse(header(raw(t, pair{"claims", tampered}, pair{"sig", honest[len(honest)-64:]})))
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.Verify(credential, nil, options()); identity.TagOf(err) != identity.TagBadSignature {
		t.Errorf("got %v, want %s", err, identity.TagBadSignature)
	}
}

// Seconds beyond what a time.Time can hold still compare, and print as years that people know.
func TestWindowsBeyondTime(t *testing.T) {
	t.Parallel()
	pairs := with("not_after", int64(math.MaxInt64))
	pairs[3].value = int64(math.MinInt64)
	credential, err := identity.Parse(header(envelopeOf(t, raw(t, pairs...))))
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.Verify(credential, nil, options()); err != nil {
		t.Errorf("Verify: %v", err)
	}
	if from, until := credential.Claims().NotBefore.Year(), credential.Claims().NotAfter.Year(); from != 1970 || until != 9999 {
		t.Errorf("got %d to %d, want 1970 to 9999", from, until)
	}
	pairs[3].value = int64(math.MaxInt64)
	if credential, err = identity.Parse(header(envelopeOf(t, raw(t, pairs...)))); err != nil {
		t.Fatal(err)
	}
	err = identity.Verify(credential, nil, options())
	if identity.TagOf(err) != identity.TagNotYetValid || !strings.Contains(err.Error(), "9999-12-31T23:59:59Z") {
		t.Errorf("got %v, want %s", err, identity.TagNotYetValid)
	}
}

func TestCheckLinks(t *testing.T) {
	t.Parallel()
	inter, leaf := issue(t, rootKey(), interClaims()), issue(t, interKey(), leafClaims())
	spare := identity.Chain{inter, {}}
	chain := spare[:1]
	if err := chain.CheckLinks(leaf); err != nil {
		t.Errorf("with its leaf: %v", err)
	}
	if err := chain.CheckLinks(identity.Credential{}); err != nil {
		t.Errorf("alone: %v", err)
	}
	if !spare[1].IsZero() {
		t.Error("the leaf was written into the chain's spare room")
	}
	if err := chain.CheckLinks(issue(t, rootKey(), claims())); identity.TagOf(err) != identity.TagChainNameMismatch {
		t.Errorf("with another leaf: got %v, want %s", err, identity.TagChainNameMismatch)
	}
}
