package identity

import (
	"cmp"
	"crypto/ed25519"
	"time"
)

// DefaultMaxDepth is how many credentials may be between a root and the sender's key, the leaf among them: one intermediate.
const DefaultMaxDepth = 2

// Options is what a verifier trusts.
type Options struct {
	// Bundle maps the issuer ids of the roots to their public keys.
	Bundle map[string]ed25519.PublicKey
	// TrustDomain is the only trust domain that is taken. Empty takes any.
	TrustDomain string
	// Now is the time to check windows at. The zero value means the time of the call.
	Now time.Time
	// MaxDepth bounds the intermediates plus the leaf. Defaults to [DefaultMaxDepth].
	MaxDepth int
}

// Verify checks a leaf as peers do: from a root of the bundle down to the leaf, each credential's name, trust domain, signature
// and window, in this order. The first fault is the error, an [*Error] with its tag. Whose push it came with, and that the push
// is signed by the subject's key, is for the caller to check.
func Verify(leaf Credential, chain Chain, options Options) error {
	now := options.Now
	if now.IsZero() {
		now = time.Now()
	}
	if depth, most := len(chain)+1, cmp.Or(options.MaxDepth, DefaultMaxDepth); depth > most {
		return tagged(TagChainTooDeep, "%d credentials with the leaf, and %d are allowed", depth, most)
	}
	links := append(chain[:len(chain):len(chain)], leaf)
	for i, credential := range links {
		if credential.IsZero() {
			return tagged(TagMalformed, "there is no credential")
		}
		if i == 0 {
			if err := credential.anchoredIn(options); err != nil {
				return err
			}
		} else if err := credential.issuedBy(links[i-1]); err != nil {
			return err
		}
		if err := credential.CheckWindow(now); err != nil {
			return err
		}
	}
	return nil
}

// anchoredIn checks the credential against the roots.
func (c Credential) anchoredIn(options Options) error {
	root, known := options.Bundle[c.claims.IssuerID]
	switch {
	case !known || len(root) != ed25519.PublicKeySize:
		return tagged(TagUnknownIssuer, "no root is called %q", c.claims.IssuerID)
	case options.TrustDomain != "" && c.claims.TrustDomain != options.TrustDomain:
		return tagged(TagWrongTrustDomain, "%q is of the trust domain %q, not %q", c.claims.SubjectAgentID, c.claims.TrustDomain, options.TrustDomain)
	case !ed25519.Verify(root, c.signed, c.signature):
		return tagged(TagBadSignature, "%q is not signed by the key of %q", c.claims.SubjectAgentID, c.claims.IssuerID)
	default:
		return nil
	}
}

// issuedBy checks the credential against the one above it.
func (c Credential) issuedBy(parent Credential) error {
	switch {
	case c.claims.IssuerID != parent.claims.SubjectAgentID:
		return tagged(TagChainNameMismatch, "%q is issued by %q and comes after %q", c.claims.SubjectAgentID, c.claims.IssuerID, parent.claims.SubjectAgentID)
	case c.claims.TrustDomain != parent.claims.TrustDomain:
		return tagged(TagChainDomainMismatch, "%q is of the trust domain %q, its issuer of %q",
			c.claims.SubjectAgentID, c.claims.TrustDomain, parent.claims.TrustDomain)
	case len(parent.claims.SubjectKey) != ed25519.PublicKeySize || !ed25519.Verify(parent.claims.SubjectKey, c.signed, c.signature):
		return tagged(TagBadSignature, "%q is not signed by the key of %q", c.claims.SubjectAgentID, c.claims.IssuerID)
	default:
		return nil
	}
}
