package identity

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Tag says what is wrong with a credential or chain, in the word that peers use. The list is closed ([Tags]). It is an error by
// itself: errors.Is(err, TagExpired) holds for every error of this package that has the tag.
type Tag string

// What can be wrong with a credential.
const (
	TagMalformed          Tag = "credential_malformed"
	TagBadSignature       Tag = "credential_bad_signature"
	TagNotYetValid        Tag = "credential_not_yet_valid"
	TagExpired            Tag = "credential_expired"
	TagUnsupportedVersion Tag = "credential_unsupported_version"
	TagBadSubjectKey      Tag = "credential_bad_subject_key"
	TagUnknownIssuer      Tag = "credential_unknown_issuer"
	TagWrongTrustDomain   Tag = "credential_wrong_trust_domain"
)

// What can be wrong with a chain, beside what can be wrong with one of its credentials.
const (
	TagChainEmpty          Tag = "chain_empty"
	TagChainTooDeep        Tag = "chain_too_deep"
	TagChainNameMismatch   Tag = "chain_name_mismatch"
	TagChainDomainMismatch Tag = "chain_domain_mismatch"
)

// Tags returns every tag, in a fixed order. The caller owns the slice.
func Tags() []Tag {
	return []Tag{
		TagMalformed, TagBadSignature, TagNotYetValid, TagExpired, TagUnsupportedVersion, TagBadSubjectKey, TagUnknownIssuer,
		TagWrongTrustDomain, TagChainEmpty, TagChainTooDeep, TagChainNameMismatch, TagChainDomainMismatch,
	}
}

// Error implements error.
func (t Tag) Error() string { return string(t) }

// Error is a credential or chain that cannot be used. Its text is the tag and a detail, in which nothing of the credential is
// but quoted names and times.
type Error struct {
	Tag    Tag
	Detail string
}

// Error implements error.
func (e *Error) Error() string { return string(e.Tag) + ": " + e.Detail }

// Unwrap returns the tag.
func (e *Error) Unwrap() error { return e.Tag }

// TagOf returns the tag in err's tree, or "" if there is none.
func TagOf(err error) Tag {
	tag, _ := errors.AsType[Tag](err)
	return tag
}

// printable returns the text of an error of the decoder, which may quote what it read.
func printable(err error) string {
	return fmt.Sprintf("%.200s", strings.Trim(strconv.QuoteToASCII(err.Error()), `"`))
}

func tagged(tag Tag, format string, args ...any) *Error {
	return &Error{Tag: tag, Detail: fmt.Sprintf(format, args...)}
}
