package refpeer

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// credentialError is the tag of why a credential does not count.
type credentialError string

func (e credentialError) Error() string { return string(e) }

// The tags of credentials that do not count, as the reference words them; the
// last one, for a credential of another peer, is our own.
const (
	errMalformed     credentialError = "credential_malformed"
	errBadSignature  credentialError = "credential_bad_signature"
	errNotYetValid   credentialError = "credential_not_yet_valid"
	errExpired       credentialError = "credential_expired"
	errVersion       credentialError = "credential_unsupported_version"
	errSubjectKey    credentialError = "credential_bad_subject_key"
	errUnknownIssuer credentialError = "credential_unknown_issuer"
	errTrustDomain   credentialError = "credential_wrong_trust_domain"
	errChainEmpty    credentialError = "chain_empty"
	errChainDeep     credentialError = "chain_too_deep"
	errChainName     credentialError = "chain_name_mismatch"
	errChainDomain   credentialError = "chain_domain_mismatch"
	errOtherSubject  credentialError = "credential_subject_mismatch"
)

// credentialOK is what the log says of a credential that counts.
const credentialOK = "ok"

// maxChainDepth is how many credentials a chain has at most, the leaf counted.
const maxChainDepth = 2

// claims are what an issuer says of a subject.
type claims struct {
	version             uint64
	issuer, subject     string
	subjectKey          []byte
	trustDomain         string
	notBefore, notAfter int64 // Unix seconds, both inclusive

	signed    []byte // the encoded claims as carried
	signature []byte
}

// trust is what credentials are verified against.
type trust struct {
	bundle *keyring // <issuer id>.pub
	domain string   // empty: any
}

// key verifies the two headers at the time now and returns the subject's key.
// An error is a [credentialError]. An empty chain header means that a root of
// the bundle signed the credential itself.
func (t trust) key(cred, chain, peerID string, now time.Time) (ed25519.PublicKey, error) {
	leaf, err := parseCredential(cred)
	if err != nil {
		return nil, err
	}
	path, err := parseChain(chain)
	if err != nil {
		return nil, err
	}
	path = append(path, leaf)
	if len(path) > maxChainDepth {
		return nil, errChainDeep
	}
	anchor := path[0]
	issuerKey, err := t.bundle.find(anchor.issuer)
	if err != nil || issuerKey == nil { // a bad file is as good as none
		return nil, errUnknownIssuer
	}
	if t.domain != "" && anchor.trustDomain != t.domain {
		return nil, errTrustDomain
	}
	for i, c := range path {
		if i > 0 {
			switch parent := path[i-1]; {
			case c.issuer != parent.subject:
				return nil, errChainName
			case c.trustDomain != parent.trustDomain:
				return nil, errChainDomain
			}
			issuerKey = path[i-1].subjectKey
		}
		if err := c.verify(issuerKey, now); err != nil {
			return nil, err
		}
	}
	if leaf.subject != peerID {
		return nil, errOtherSubject
	}
	return leaf.subjectKey, nil
}

func (c *claims) verify(issuer ed25519.PublicKey, now time.Time) error {
	switch {
	case !ed25519.Verify(issuer, c.signed, c.signature):
		return errBadSignature
	case now.Unix() < c.notBefore:
		return errNotYetValid
	case now.Unix() > c.notAfter:
		return errExpired
	}
	return nil
}

// parseCredential decodes the header x-memory-cred.
func parseCredential(header string) (*claims, error) {
	b, err := unwrapHeader(header)
	if err != nil {
		return nil, err
	}
	return parseEnvelope(b)
}

// parseChain decodes the header x-memory-cred-chain; none if there is none.
func parseChain(header string) ([]*claims, error) {
	if header == "" {
		return nil, nil
	}
	b, err := unwrapHeader(header)
	if err != nil {
		return nil, err
	}
	var envelopes [][]byte
	if err := decodeCBOR(b, &envelopes); err != nil || b[0]>>5 != 4 {
		return nil, errMalformed
	}
	switch {
	case len(envelopes) == 0:
		return nil, errChainEmpty
	case len(envelopes) >= maxChainDepth:
		return nil, errChainDeep
	}
	var out []*claims
	for _, envelope := range envelopes {
		c, err := parseEnvelope(envelope)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// unwrapHeader takes off the version and the base64.
func unwrapHeader(header string) ([]byte, error) {
	header = strings.TrimSpace(header)
	encoded, known := strings.CutPrefix(header, "v1=")
	if !known {
		version, _, cut := strings.Cut(header, "=")
		if digits := strings.TrimPrefix(version, "v"); cut && digits != version && digits != "" &&
			strings.Trim(digits, "0123456789") == "" {
			return nil, errVersion
		}
		return nil, errMalformed
	}
	b, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(b) == 0 {
		return nil, errMalformed
	}
	return b, nil
}

// parseEnvelope decodes the map of claims and sig, which must have no other
// key. That the claims are encoded canonically is the producer's matter.
func parseEnvelope(b []byte) (*claims, error) {
	var envelope map[string]cbor.RawMessage
	if err := decodeCBOR(b, &envelope); err != nil || len(envelope) != 2 {
		return nil, errMalformed
	}
	c := &claims{}
	if err := errors.Join(byteString(envelope["claims"], &c.signed), byteString(envelope["sig"], &c.signature)); err != nil {
		return nil, err
	}
	if len(c.signature) != ed25519.SignatureSize {
		return nil, errMalformed
	}
	var fields map[string]cbor.RawMessage
	if err := decodeCBOR(c.signed, &fields); err != nil {
		return nil, errMalformed
	}
	if err := decodeCBOR(fields["cred_version"], &c.version); err != nil {
		return nil, errMalformed
	}
	if c.version != 1 {
		return nil, errVersion
	}
	err := errors.Join(
		decodeCBOR(fields["issuer_id"], &c.issuer),
		decodeCBOR(fields["subject_agent_id"], &c.subject),
		byteString(fields["subject_pubkey"], &c.subjectKey),
		decodeCBOR(fields["trust_domain"], &c.trustDomain),
		decodeCBOR(fields["not_before"], &c.notBefore),
		decodeCBOR(fields["not_after"], &c.notAfter),
	)
	if err != nil || len(fields) != 7 {
		return nil, errMalformed
	}
	if len(c.subjectKey) != ed25519.PublicKeySize {
		return nil, errSubjectKey
	}
	return c, nil
}

// decodeCBOR decodes exactly one value: no repeated keys, no indefinite
// lengths, no tags, null for nothing.
func decodeCBOR(b []byte, v any) error {
	if len(b) == 0 || bytes.Equal(b, []byte{0xf6}) {
		return errMalformed
	}
	mode, err := cbor.DecOptions{
		DupMapKey:   cbor.DupMapKeyEnforcedAPF,
		IndefLength: cbor.IndefLengthForbidden,
		TagsMd:      cbor.TagsForbidden,
	}.DecMode()
	if err != nil {
		return err
	}
	return mode.Unmarshal(b, v)
}

// byteString decodes a byte string, and nothing that could pass for one.
func byteString(b []byte, into *[]byte) error {
	if len(b) == 0 || b[0]>>5 != 2 {
		return errMalformed
	}
	return decodeCBOR(b, into)
}
