package identity_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"quorumbox/internal/identity"
)

func TestIssueRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*identity.Claims)
		want   string
	}{
		{"version 2", func(c *identity.Claims) { c.CredVersion = 2 }, "there is only version 1"},
		{"no issuer", func(c *identity.Claims) { c.IssuerID = "" }, "issuer id is empty"},
		{"issuer with a blank", func(c *identity.Claims) { c.IssuerID = "a b" }, "issuer id may hold only"},
		{"no subject", func(c *identity.Claims) { c.SubjectAgentID = "" }, "subject is empty"},
		{"long subject", func(c *identity.Claims) { c.SubjectAgentID = strings.Repeat("a", 129) }, "subject has 129 characters"},
		{"subject with dots", func(c *identity.Claims) { c.SubjectAgentID = "a/../b" }, "subject may neither hold"},
		{"rooted subject", func(c *identity.Claims) { c.SubjectAgentID = "/a" }, "subject may neither hold"},
		{"no key", func(c *identity.Claims) { c.SubjectKey = nil }, "subject key has 0 bytes"},
		{"no point", func(c *identity.Claims) { c.SubjectKey = noPoint() }, "subject key is no point"},
		{"no domain", func(c *identity.Claims) { c.TrustDomain = "" }, "trust domain must be"},
		{"domain with a line feed", func(c *identity.Claims) { c.TrustDomain = "a\nb" }, "trust domain must be"},
		{"long domain", func(c *identity.Claims) { c.TrustDomain = strings.Repeat("a", 254) }, "trust domain must be"},
		{"backwards", func(c *identity.Claims) { c.NotAfter = c.NotBefore.Add(-time.Second) }, "the window ends (2030-03-17"},
		{"before 1970", func(c *identity.Claims) { c.NotBefore = time.Unix(-1, 0) }, "years 1970 to 9999"},
		{"no times", func(c *identity.Claims) { c.NotBefore, c.NotAfter = time.Time{}, time.Time{} }, "years 1970 to 9999"},
		{"after 9999", func(c *identity.Claims) { c.NotAfter = time.Unix(253402300800, 0) }, "years 1970 to 9999"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := claims()
			test.change(&c)
			got, err := identity.Issue(rootKey(), c)
			if err == nil || !strings.Contains(err.Error(), test.want) || !got.IsZero() {
				t.Errorf("got %v, want an error with %q and no credential", err, test.want)
			}
		})
	}
	_, err := identity.Issue(rootKey(), identity.Claims{})
	for _, want := range []string{"issuer id", "subject is", "trust domain", "subject key", "window"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("all at once: got %v, want it to contain %q", err, want)
		}
	}
	if _, err := identity.Issue(rootKey()[:32], claims()); err == nil || !strings.Contains(err.Error(), "issuer's key has 32 bytes") {
		t.Errorf("short issuer key: got %v", err)
	}
}

func TestIssueTakesNoVersionForOne(t *testing.T) {
	t.Parallel()
	c := claims()
	c.CredVersion = 0
	if got := issue(t, rootKey(), c).Header(); got != vectorRootLeaf {
		t.Errorf("got %s, want %s", got, vectorRootLeaf)
	}
}

// The subject key that is handed out is a copy.
func TestClaimsAreCopies(t *testing.T) {
	t.Parallel()
	credential := issue(t, rootKey(), claims())
	credential.Claims().SubjectKey[0] ^= 1
	if !credential.Claims().SubjectKey.Equal(publicOf(nodeKey())) {
		t.Error("the credential has changed")
	}
}

// pair is one of the pairs of a map that raw writes.
type pair struct {
	key   string
	value any
}

// raw is the CBOR of a map with the pairs in the given order.
func raw(tb testing.TB, pairs ...pair) []byte {
	tb.Helper()
	content := []byte{0xa0 + byte(len(pairs))} //nolint:gosec // G115: a handful of pairs
	for _, p := range pairs {
		for _, part := range []any{p.key, p.value} {
			encoded, err := cbor.Marshal(part)
			if err != nil {
				tb.Fatal(err)
			}
			content = append(content, encoded...)
		}
	}
	return content
}

func claimPairs() []pair {
	return []pair{
		{"cred_version", 1},
		{"issuer_id", "root"},
		{"not_after", 1900003600},
		{"not_before", 1899999990},
		{"subject_agent_id", "ai:leader"},
		{"subject_pubkey", []byte(publicOf(nodeKey()))},
		{"trust_domain", "fleet.example"},
	}
}

// with returns the pairs with one value changed, or one pair more.
func with(key string, value any) []pair {
	pairs := claimPairs()
	for i := range pairs {
		if pairs[i].key == key {
			pairs[i].value = value
			return pairs
		}
	}
	return append(pairs, pair{key, value})
}

func without(key string) []pair {
	return slices.DeleteFunc(claimPairs(), func(p pair) bool { return p.key == key })
}

// envelopeOf signs claims of any shape by the root.
func envelopeOf(tb testing.TB, claims []byte) []byte {
	tb.Helper()
	return raw(tb, pair{"claims", claims}, pair{"sig", ed25519.Sign(rootKey(), claims)})
}

func header(content []byte) string { return "v1=" + base64.StdEncoding.EncodeToString(content) }

func noPoint() ed25519.PublicKey { return append([]byte{2}, make([]byte, 31)...) }

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	good := envelopeOf(t, raw(t, claimPairs()...))
	if _, err := identity.Parse(header(good)); err != nil {
		t.Fatalf("the credential that the cases change: %v", err)
	}
	claimed := func(pairs []pair) string { return header(envelopeOf(t, raw(t, pairs...))) }
	signature := make([]byte, 64)
	for _, test := range []struct {
		name, header string
		want         identity.Tag
	}{
		{"empty", "", identity.TagMalformed},
		{"no prefix", strings.TrimPrefix(header(good), "v1="), identity.TagMalformed},
		{"no number", "v=" + header(good)[3:], identity.TagMalformed},
		{"upper-case prefix", "V1=" + header(good)[3:], identity.TagMalformed},
		{"another letter", "x1=" + header(good)[3:], identity.TagMalformed},
		{"version 2", "v2=" + header(good)[3:], identity.TagUnsupportedVersion},
		{"version 01", "v01=" + header(good)[3:], identity.TagUnsupportedVersion},
		{"version 10", "v10=", identity.TagUnsupportedVersion},
		{"nothing behind the prefix", "v1=", identity.TagMalformed},
		{"not padded", strings.TrimRight(header(good), "="), identity.TagMalformed},
		{"URL-safe base64", "v1=" + base64.URLEncoding.EncodeToString([]byte{0xfb, 0xff, 0xfe}), identity.TagMalformed},
		{"a line feed", header(good)[:20] + "\n" + header(good)[20:], identity.TagMalformed},
		{"a blank at the end", header(good) + " ", identity.TagMalformed},
		{"stray bits", strings.Replace(vectorRootLeaf, "Cw==", "Cx==", 1), identity.TagMalformed},
		{"too long", header(append(good, make([]byte, 8<<10)...)), identity.TagMalformed},
		{"trailing byte", header(append(slices.Clone(good), 0)), identity.TagMalformed},
		{"cut", header(good[:len(good)-1]), identity.TagMalformed},
		{"a list", header([]byte{0x80}), identity.TagMalformed},
		{"indefinite length", header(append(append([]byte{0xbf}, good[1:]...), 0xff)), identity.TagMalformed},
		{"tagged", header(append([]byte{0xd8, 0x18}, good...)), identity.TagMalformed},
		{"no claims", header(raw(t, pair{"sig", signature})), identity.TagMalformed},
		{"no signature", header(raw(t, pair{"claims", raw(t, claimPairs()...)})), identity.TagMalformed},
		{"null signature", header(raw(t, pair{"claims", raw(t, claimPairs()...)}, pair{"sig", nil})), identity.TagMalformed},
		{"short signature", header(raw(t, pair{"claims", raw(t, claimPairs()...)}, pair{"sig", signature[1:]})), identity.TagMalformed},
		{"signature as text", header(raw(t, pair{"claims", raw(t, claimPairs()...)}, pair{"sig", string(signature)})), identity.TagMalformed},
		{"signature as a list", header(raw(t, pair{"claims", raw(t, claimPairs()...)}, pair{"sig", make([]int, 64)})), identity.TagMalformed},
		{"claims that are a map", header(raw(t, pair{"claims", map[string]int{}}, pair{"sig", signature})), identity.TagMalformed},
		{"another key", header(append(append([]byte{0xa3}, good[1:]...), raw(t, pair{"x", 1})[1:]...)), identity.TagMalformed},
		{"a key twice", header(append(append([]byte{0xa3}, good[1:]...), raw(t, pair{"sig", signature})[1:]...)), identity.TagMalformed},
		{"a key in another case", header(raw(t, pair{"Claims", raw(t, claimPairs()...)}, pair{"sig", signature})), identity.TagMalformed},

		{"claims: empty", header(envelopeOf(t, nil)), identity.TagMalformed},
		{"claims: trailing byte", header(envelopeOf(t, append(raw(t, claimPairs()...), 0))), identity.TagMalformed},
		{"claims: another key", claimed(with("x", 1)), identity.TagMalformed},
		{"claims: a key twice", claimed(append(claimPairs(), pair{"issuer_id", "other"})), identity.TagMalformed},
		{"claims: the version twice", claimed(append(claimPairs(), pair{"cred_version", 1})), identity.TagMalformed},
		{"claims: no version", claimed(without("cred_version")), identity.TagMalformed},
		{"claims: version as text", claimed(with("cred_version", "1")), identity.TagMalformed},
		{"claims: version 2", claimed(with("cred_version", 2)), identity.TagUnsupportedVersion},
		{"claims: version 0", claimed(with("cred_version", 0)), identity.TagUnsupportedVersion},
		{"claims: no issuer", claimed(without("issuer_id")), identity.TagMalformed},
		{"claims: issuer as bytes", claimed(with("issuer_id", []byte("root"))), identity.TagMalformed},
		{"claims: issuer null", claimed(with("issuer_id", nil)), identity.TagMalformed},
		{"claims: issuer no UTF-8", header(envelopeOf(t, []byte(strings.Replace(string(raw(t, claimPairs()...)), "root", "roo\xff", 1)))), identity.TagMalformed},
		{"claims: no end", claimed(without("not_after")), identity.TagMalformed},
		{"claims: no begin", claimed(without("not_before")), identity.TagMalformed},
		{"claims: end with a fraction", claimed(with("not_after", 1.5)), identity.TagMalformed},
		{"claims: end beyond int64", claimed(with("not_after", uint64(math.MaxUint64))), identity.TagMalformed},
		{"claims: no subject", claimed(without("subject_agent_id")), identity.TagMalformed},
		{"claims: no key", claimed(without("subject_pubkey")), identity.TagMalformed},
		{"claims: key as text", claimed(with("subject_pubkey", strings.Repeat("a", 32))), identity.TagMalformed},
		{"claims: short key", claimed(with("subject_pubkey", make([]byte, 31))), identity.TagBadSubjectKey},
		{"claims: long key", claimed(with("subject_pubkey", make([]byte, 33))), identity.TagBadSubjectKey},
		{"claims: key that is no point", claimed(with("subject_pubkey", []byte(noPoint()))), identity.TagBadSubjectKey},
		{"claims: no domain", claimed(without("trust_domain")), identity.TagMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := identity.Parse(test.header)
			if tag := identity.TagOf(err); tag != test.want || !got.IsZero() {
				t.Errorf("got %v, want %s and no credential", err, test.want)
			}
			// An item of a chain is judged alike.
			content, decodeErr := base64.StdEncoding.DecodeString(strings.TrimPrefix(test.header, "v1="))
			if !strings.HasPrefix(test.header, "v1=") || decodeErr != nil || len(content) > 4000 {
				return
			}
			chain, marshalErr := cbor.Marshal([][]byte{content})
			if marshalErr != nil {
				t.Fatal(marshalErr)
			}
			if test.name == "a line feed" || test.name == "stray bits" || test.name == "a blank at the end" {
				return // faults of the text and not of the bytes
			}
			if _, err := identity.ParseChain(header(chain)); identity.TagOf(err) != test.want {
				t.Errorf("in a chain: got %v, want %s", err, test.want)
			}
		})
	}
}

// What is not canonical is not the fault of who reads it: the signature is over the bytes as they came.
func TestParseTakesAnyOrder(t *testing.T) {
	t.Parallel()
	pairs := claimPairs()
	slices.Reverse(pairs)
	encoded := raw(t, pairs...)
	content := raw(t, pair{"sig", ed25519.Sign(rootKey(), encoded)}, pair{"claims", encoded})
	credential, err := identity.Parse(header(content))
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	if credential.Header() != header(content) {
		t.Error("the bytes have changed")
	}
	if err := identity.Verify(credential, nil, options()); err != nil {
		t.Errorf("Verify: %v", err)
	}
}

func TestParseChainRefuses(t *testing.T) {
	t.Parallel()
	good := envelopeOf(t, raw(t, claimPairs()...))
	list := func(items ...any) string {
		content, err := cbor.Marshal(items)
		if err != nil {
			t.Fatal(err)
		}
		return header(content)
	}
	for _, test := range []struct {
		name, header string
		want         identity.Tag
	}{
		{"empty text", "", identity.TagMalformed},
		{"version 2", "v2=gA==", identity.TagUnsupportedVersion},
		{"empty list", "v1=gA==", identity.TagChainEmpty},
		{"a credential", header(good), identity.TagMalformed},
		{"null", header([]byte{0xf6}), identity.TagChainEmpty},
		{"text items", list(string(good)), identity.TagMalformed},
		{"null item", list(good, nil), identity.TagMalformed},
		{"number item", list(1), identity.TagMalformed},
		{"second item bad", list(good, []byte{0xa0}), identity.TagMalformed},
		{"many items", list(slices.Repeat([]any{[]byte{0xa0}}, 17)...), identity.TagMalformed},
		{"indefinite length", header([]byte{0x9f, 0xff}), identity.TagMalformed},
		{"trailing byte", header([]byte{0x80, 0x00}), identity.TagMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := identity.ParseChain(test.header)
			if tag := identity.TagOf(err); tag != test.want || got != nil {
				t.Errorf("got %v, want %s and no chain", err, test.want)
			}
		})
	}
}

func TestNothingHasNoHeader(t *testing.T) {
	t.Parallel()
	if got := (identity.Credential{}).Header(); got != "" {
		t.Errorf("credential: got %q, want none", got)
	}
	if got := (identity.Chain{}).Header(); got != "" {
		t.Errorf("chain: got %q, want none", got)
	}
}

// The oracle is Go's own verifier, which tells a key that is no point from a signature that is wrong by the text of its error.
func TestCheckPublicKey(t *testing.T) {
	t.Parallel()
	keys := []ed25519.PublicKey{noPoint(), publicOf(nodeKey()), make([]byte, 32), append([]byte{1}, make([]byte, 31)...)}
	for i := range byte(60) {
		keys = append(keys, ed25519.PublicKey(seeded(i)[:32]), publicOf(seeded(i)))
	}
	full := []byte(strings.Repeat("\xff", 32))
	keys = append(keys, full, append([]byte{0xed}, append(slices.Repeat([]byte{0xff}, 30), 0x7f)...))
	refused := 0
	for _, key := range keys {
		oracle := ed25519.VerifyWithOptions(key, nil, make([]byte, 64), &ed25519.Options{})
		want := oracle == nil || oracle.Error() == "ed25519: invalid signature"
		if got := identity.CheckPublicKey(key) == nil; got != want {
			t.Errorf("%x: got %v, want %v", key, got, want)
		}
		if !want {
			refused++
		}
	}
	if refused < 10 || refused > len(keys)/2 {
		t.Errorf("%d of %d keys are no points: the oracle does not work", refused, len(keys))
	}
	if err := identity.CheckPublicKey(make([]byte, 31)); err == nil || !strings.Contains(err.Error(), "has 31 bytes") {
		t.Errorf("short: got %v", err)
	}
}

func TestTagsAreErrors(t *testing.T) {
	t.Parallel()
	_, err := identity.Parse("v2=")
	e, ok := errors.AsType[*identity.Error](err)
	if !ok || !errors.Is(err, identity.TagUnsupportedVersion) || errors.Is(err, identity.TagMalformed) {
		t.Fatalf("got %v, want an *Error with one tag", err)
	}
	if !strings.HasPrefix(e.Error(), "credential_unsupported_version: ") {
		t.Errorf("got %q, want it to begin with the tag", e)
	}
	if got := identity.TagOf(errors.New("other")); got != "" {
		t.Errorf("TagOf of another error: got %q, want none", got)
	}
}

func FuzzParseCredential(f *testing.F) {
	for _, seed := range []string{vectorRootLeaf, vectorLeaf, vectorChain, "v1=", "v2=", "v1=oA==", "v1=omZjbGFpbXNA"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		credential, err := identity.Parse(text)
		if err != nil {
			if !slices.Contains(identity.Tags(), identity.TagOf(err)) {
				t.Errorf("%q: got %v, want a tag of the list", text, err)
			}
			return
		}
		if got := credential.Header(); got != text {
			t.Errorf("%q was written again as %q", text, got)
		}
		if err := identity.Verify(credential, nil, options()); err == nil && text != vectorRootLeaf && credential.Claims().SubjectAgentID != "region/a/ca" {
			t.Errorf("a forged credential verifies: %q", text)
		}
	})
}

func FuzzParseChain(f *testing.F) {
	for _, seed := range []string{vectorChain, vectorLeaf, "v1=gA==", "v1=gUA=", "v3=", "v1=gVj2"} {
		f.Add(seed)
	}
	leaf, err := identity.Parse(vectorLeaf)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		chain, err := identity.ParseChain(text)
		if err != nil {
			if !slices.Contains(identity.Tags(), identity.TagOf(err)) {
				t.Errorf("%q: got %v, want a tag of the list", text, err)
			}
			return
		}
		again, err := identity.ParseChain(chain.Header())
		if err != nil || again.Header() != chain.Header() || len(again) != len(chain) {
			t.Errorf("%q was written again as %q: %v", text, chain.Header(), err)
		}
		if err := identity.Verify(leaf, chain, options()); err == nil && chain.Header() != vectorChain {
			t.Errorf("a forged chain verifies: %q", text)
		}
	})
}
