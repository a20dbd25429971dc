package identity

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// CredVersion is the only version of claims there is.
const CredVersion = 1

const (
	maxNameBytes = 128 // of an agent id or issuer id
	// lastSecond is the end of the year 9999, the last that RFC 3339 can write.
	lastSecond = 253402300799
)

// Claims is what a credential says. Times are whole seconds, both ends of the window inclusive.
type Claims struct {
	// CredVersion is 1. [Issue] takes 0 for 1.
	CredVersion uint64
	// IssuerID is the name of the key that signs: that of a root, as in the peers' bundle, or the subject of the
	// intermediate above.
	IssuerID string
	// NotBefore and NotAfter bound the time in which the credential is valid, 1970 to 9999.
	NotBefore, NotAfter time.Time
	// SubjectAgentID is the agent id that owns the key: the sender id of a leaf, the issuer id of an intermediate. 1..128
	// characters of A-Z a-z 0-9 _ - : @ . /, no "..", no leading "/".
	SubjectAgentID string
	// SubjectKey is the public key of the subject.
	SubjectKey ed25519.PublicKey
	// TrustDomain is the scope, the same in a whole chain. 1..253 printable ASCII characters without blanks.
	TrustDomain string
}

// Credential is a signed set of claims. Make one with [Issue] or [Parse]; it never changes. The zero value is none. That it could
// be parsed does not mean that it is genuine: see [Verify].
type Credential struct {
	claims              Claims
	notBefore, notAfter int64  // unix seconds; beyond the years that Claims can say they still compare
	signed              []byte // the claims as they were signed
	signature           []byte
	envelope            []byte
}

// wireClaims is the CBOR map of claims. The fields are in the order of the wire. Pointers tell what is absent.
type wireClaims struct {
	CredVersion    *uint64          `cbor:"cred_version"`
	IssuerID       *string          `cbor:"issuer_id"`
	NotAfter       *int64           `cbor:"not_after"`
	NotBefore      *int64           `cbor:"not_before"`
	SubjectAgentID *string          `cbor:"subject_agent_id"`
	SubjectPubkey  *cbor.ByteString `cbor:"subject_pubkey"`
	TrustDomain    *string          `cbor:"trust_domain"`
}

// wireEnvelope is the CBOR map of a credential.
type wireEnvelope struct {
	Claims *cbor.ByteString `cbor:"claims"`
	Sig    *cbor.ByteString `cbor:"sig"`
}

// Issue signs claims with the issuer's key. It refuses claims that no peer would take, all problems at once. Equal claims and
// keys give equal bytes.
func Issue(issuerKey ed25519.PrivateKey, claims Claims) (Credential, error) {
	if len(issuerKey) != ed25519.PrivateKeySize {
		return Credential{}, fmt.Errorf("issue a credential: the issuer's key has %d bytes: an Ed25519 private key has %d",
			len(issuerKey), ed25519.PrivateKeySize)
	}
	if claims.CredVersion == 0 {
		claims.CredVersion = CredVersion
	}
	if err := claims.check(); err != nil {
		return Credential{}, fmt.Errorf("issue a credential: %w", err)
	}
	notAfter, notBefore, subjectKey := claims.NotAfter.Unix(), claims.NotBefore.Unix(), cbor.ByteString(claims.SubjectKey)
	signed, err := encode(wireClaims{
		CredVersion: &claims.CredVersion, IssuerID: &claims.IssuerID, NotAfter: &notAfter, NotBefore: &notBefore,
		SubjectAgentID: &claims.SubjectAgentID, SubjectPubkey: &subjectKey, TrustDomain: &claims.TrustDomain,
	})
	if err != nil {
		return Credential{}, fmt.Errorf("issue a credential: %w", err)
	}
	text, signature := cbor.ByteString(signed), cbor.ByteString(ed25519.Sign(issuerKey, signed))
	envelope, err := encode(wireEnvelope{Claims: &text, Sig: &signature})
	if err != nil {
		return Credential{}, fmt.Errorf("issue a credential: %w", err)
	}
	return parseEnvelope(envelope)
}

// check returns all that is wrong with claims that are to be signed.
func (c Claims) check() error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.CredVersion != CredVersion {
		add("version %d: there is only version %d", c.CredVersion, CredVersion)
	}
	for _, name := range [...]struct{ what, value string }{{"issuer id", c.IssuerID}, {"subject", c.SubjectAgentID}} {
		if err := checkName(name.value); err != nil {
			add("%s %w", name.what, err)
		}
	}
	if n := len(c.TrustDomain); n == 0 || n > 253 || strings.ContainsFunc(c.TrustDomain, func(r rune) bool { return r <= ' ' || r > '~' }) {
		add("trust domain must be 1..253 printable ASCII characters without blanks")
	}
	if err := CheckPublicKey(c.SubjectKey); err != nil {
		add("subject key %w", err)
	}
	switch first, last := c.NotBefore.Unix(), c.NotAfter.Unix(); {
	case first < 0 || last > lastSecond:
		add("the window must lie within the years 1970 to 9999")
	case last < first:
		add("the window ends (%s) before it begins (%s)", clock(last), clock(first))
	}
	return errors.Join(problems...)
}

// checkName checks the grammar of agent ids. Its error goes on after the name's name.
func checkName(id string) error {
	switch {
	case id == "":
		return errors.New("is empty")
	case len(id) > maxNameBytes:
		return fmt.Errorf("has %d characters: at most %d are allowed", len(id), maxNameBytes)
	case strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-:@./") != "":
		return errors.New("may hold only letters, digits and _ - : @ . /")
	case strings.Contains(id, ".."), strings.HasPrefix(id, "/"):
		return errors.New(`may neither hold ".." nor begin with "/"`)
	default:
		return nil
	}
}

// Parse reads the value of an x-memory-cred header: "v1=" and standard padded base64. The error has one of the tags
// [TagMalformed], [TagUnsupportedVersion], [TagBadSubjectKey]. The signature and the window are not checked.
func Parse(header string) (Credential, error) {
	envelope, err := fromHeader(header)
	if err != nil {
		return Credential{}, err
	}
	return parseEnvelope(envelope)
}

// parseEnvelope reads the CBOR of a credential, of which it keeps parts.
func parseEnvelope(envelope []byte) (Credential, error) {
	var outer wireEnvelope
	if err := decode(envelope, &outer, strict); err != nil {
		return Credential{}, tagged(TagMalformed, "the envelope cannot be read: %s", printable(err))
	}
	if outer.Claims == nil || outer.Sig == nil || len(*outer.Sig) != ed25519.SignatureSize {
		return Credential{}, tagged(TagMalformed, "the envelope has no claims or no signature of %d bytes", ed25519.SignatureSize)
	}
	signed := []byte(*outer.Claims)

	// The version first: the claims of another one may have other keys.
	var version struct {
		CredVersion *uint64 `cbor:"cred_version"`
	}
	if err := decode(signed, &version, lenient); err != nil || version.CredVersion == nil {
		return Credential{}, tagged(TagMalformed, "the claims are no map with a version")
	}
	if *version.CredVersion != CredVersion {
		return Credential{}, tagged(TagUnsupportedVersion, "the claims are of version %d, and this is version %d", *version.CredVersion, CredVersion)
	}
	var wire wireClaims
	if err := decode(signed, &wire, strict); err != nil {
		return Credential{}, tagged(TagMalformed, "the claims cannot be read: %s", printable(err))
	}
	if wire.IssuerID == nil || wire.NotAfter == nil || wire.NotBefore == nil || wire.SubjectAgentID == nil ||
		wire.SubjectPubkey == nil || wire.TrustDomain == nil {
		return Credential{}, tagged(TagMalformed, "the claims are not complete")
	}
	subjectKey := ed25519.PublicKey(*wire.SubjectPubkey)
	if err := CheckPublicKey(subjectKey); err != nil {
		return Credential{}, tagged(TagBadSubjectKey, "the subject key %s", err)
	}
	return Credential{
		claims: Claims{
			CredVersion: *wire.CredVersion, IssuerID: *wire.IssuerID, NotBefore: clock(*wire.NotBefore).Time, NotAfter: clock(*wire.NotAfter).Time,
			SubjectAgentID: *wire.SubjectAgentID, SubjectKey: subjectKey, TrustDomain: *wire.TrustDomain,
		},
		notBefore: *wire.NotBefore, notAfter: *wire.NotAfter,
		signed: signed, signature: []byte(*outer.Sig), envelope: envelope,
	}, nil
}

// Header returns the value of the x-memory-cred header: the bytes that were issued or parsed, "" for the zero value.
func (c Credential) Header() string {
	if c.IsZero() {
		return ""
	}
	return toHeader(c.envelope)
}

// Claims returns what the credential says. Times beyond the years 1970 to 9999 are cut to them. The subject key is the caller's.
func (c Credential) Claims() Claims {
	claims := c.claims
	claims.SubjectKey = bytes.Clone(claims.SubjectKey)
	return claims
}

// IsZero reports whether this is no credential.
func (c Credential) IsZero() bool { return len(c.envelope) == 0 }

// CheckWindow returns an error with [TagNotYetValid] or [TagExpired] if now is outside of the credential's window.
func (c Credential) CheckWindow(now time.Time) error {
	switch second := now.Unix(); {
	case second < c.notBefore:
		return tagged(TagNotYetValid, "%q is valid from %s", c.claims.SubjectAgentID, clock(c.notBefore))
	case second > c.notAfter:
		return tagged(TagExpired, "%q was valid until %s", c.claims.SubjectAgentID, clock(c.notAfter))
	default:
		return nil
	}
}

// instant prints as RFC 3339 in UTC.
type instant struct{ time.Time }

func (i instant) String() string { return i.Format(time.RFC3339) }

// clock turns unix seconds into a time that RFC 3339 can write.
func clock(second int64) instant { return instant{time.Unix(min(max(second, 0), lastSecond), 0).UTC()} }
