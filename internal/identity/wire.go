package identity

import (
	"encoding/base64"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// MaxHeaderBytes bounds the value of a credential or chain header. A credential of usual names has about 350 bytes.
const MaxHeaderBytes = 8 << 10

const headerPrefix = "v1="

// toHeader returns the text form of CBOR bytes.
func toHeader(content []byte) string {
	return headerPrefix + base64.StdEncoding.EncodeToString(content)
}

// fromHeader is the reverse of toHeader. The base64 must be that which toHeader writes: padded, no line ends, no stray bits.
func fromHeader(header string) ([]byte, error) {
	if len(header) > MaxHeaderBytes {
		return nil, tagged(TagMalformed, "the header has %d bytes: at most %d are read", len(header), MaxHeaderBytes)
	}
	version, text, found := strings.Cut(header, "=")
	digits, isVersion := strings.CutPrefix(version, "v")
	switch {
	case !found || !isVersion || digits == "" || strings.Trim(digits, "0123456789") != "":
		return nil, tagged(TagMalformed, "the header does not begin with %q", headerPrefix)
	case version+"=" != headerPrefix:
		return nil, tagged(TagUnsupportedVersion, "the header is of version %.20s, and this is version 1", digits)
	case strings.ContainsAny(text, "\r\n"): // which encoding/base64 passes over
		return nil, tagged(TagMalformed, "the header has line ends")
	}
	content, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, tagged(TagMalformed, "the header is no standard padded base64")
	}
	return content, nil
}

// strictness says what to do about keys that a Go type does not have.
type strictness uint8

const (
	strict  strictness = iota // refuse them
	lenient                   // pass over them
)

// encode returns the CBOR of a struct: keys in the order of its fields, definite lengths, shortest integers.
func encode(v any) ([]byte, error) {
	mode, err := cbor.EncOptions{Sort: cbor.SortNone, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden}.EncMode()
	if err != nil {
		return nil, err
	}
	return mode.Marshal(v)
}

// decode reads all of content. It needs no canonical form, but refuses what a canonical form cannot have: keys that come twice,
// indefinite lengths, tags, text that is no UTF-8.
func decode(content []byte, into any, keys strictness) error {
	options := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		MaxNestedLevels:   4,
		MaxArrayElements:  16,
		MaxMapPairs:       16,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	}
	if keys == strict {
		options.ExtraReturnErrors = cbor.ExtraDecErrorUnknownField
	}
	mode, err := options.DecMode()
	if err != nil {
		return err
	}
	return mode.Unmarshal(content, into)
}
