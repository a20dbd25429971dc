package identity

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Chain is the intermediates between a root and the issuer of a leaf, anchor first: the first is signed by a root, each other by
// the one before it. The leaf is not among them. An empty chain is that of a leaf that a root signed.
type Chain []Credential

// ParseChain reads the value of an x-memory-cred-chain header. The error has one of the tags of [Parse], or [TagChainEmpty] if the
// header lists no credential. That the links hold is not checked: see [Verify].
func ParseChain(header string) (Chain, error) {
	content, err := fromHeader(header)
	if err != nil {
		return nil, err
	}
	var envelopes []*cbor.ByteString
	if err := decode(content, &envelopes, strict); err != nil {
		return nil, tagged(TagMalformed, "the chain cannot be read: %s", printable(err))
	}
	if len(envelopes) == 0 {
		return nil, tagged(TagChainEmpty, "the chain lists no credential")
	}
	chain := make(Chain, len(envelopes))
	for i, envelope := range envelopes {
		if envelope == nil {
			return nil, tagged(TagMalformed, "intermediate %d is no byte string", i+1)
		}
		if chain[i], err = parseEnvelope([]byte(*envelope)); err != nil {
			return nil, fmt.Errorf("intermediate %d: %w", i+1, err)
		}
	}
	return chain, nil
}

// Header returns the value of the x-memory-cred-chain header, "" for an empty chain, which is not sent.
func (c Chain) Header() string {
	if len(c) == 0 {
		return ""
	}
	envelopes := make([]cbor.ByteString, len(c))
	for i, credential := range c {
		envelopes[i] = cbor.ByteString(credential.envelope)
	}
	content, err := encode(envelopes)
	if err != nil {
		return "" // a list of byte strings can always be encoded
	}
	return toHeader(content)
}

// CheckLinks returns an error with one of the tags [TagChainNameMismatch], [TagChainDomainMismatch], [TagBadSignature] unless each
// credential of the chain, and leaf after them if it is not the zero value, is issued by the one before it. The anchor's own
// signature and the windows are not checked.
func (c Chain) CheckLinks(leaf Credential) error {
	links := c
	if !leaf.IsZero() {
		links = append(c[:len(c):len(c)], leaf)
	}
	for i := 1; i < len(links); i++ {
		if err := links[i].issuedBy(links[i-1]); err != nil {
			return err
		}
	}
	return nil
}
