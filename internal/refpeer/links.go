package refpeer

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"slices"
)

// relationReflectsOn must not run in a circle.
const relationReflectsOn = "reflects_on"

// link is one element of the list links.
type link struct {
	source, target, relation string
	createdAt                string
	signature                []byte // nil: none
	observedBy               text
	validFrom, validUntil    text

	// standing is decided before the push is applied.
	standing standing
}

// standing is what a link's signature is worth here.
type standing int

const (
	unsigned standing = iota
	attested
	forged
)

// String is the attest_level that is stored.
func (s standing) String() string {
	switch s {
	case attested:
		return "peer_attested"
	case forged:
		return "forged"
	case unsigned:
	}
	return "unsigned"
}

func (s *scanner) link() link {
	var l link
	s.element("link", []string{"source_id", "target_id", "relation", "created_at"}, func(key string) bool {
		switch key {
		case "source_id":
			l.source = s.str()
		case "target_id":
			l.target = s.str()
		case "relation":
			l.relation = s.enum(key, isRelation)
		case "created_at":
			l.createdAt = s.str()
		case "signature":
			l.signature = s.octets()
		case "observed_by":
			l.observedBy = s.text0()
		case "valid_from":
			l.validFrom = s.text0()
		case "valid_until":
			l.validUntil = s.text0()
		case "attest_level":
			s.text0()
		default:
			return false
		}
		return true
	})
	return l
}

// octets reads a nullable list of integers from 0 to 255.
func (s *scanner) octets() []byte {
	if s.null() {
		return nil
	}
	out := []byte{}
	s.array(func() {
		n := s.integer("signature", 64)
		if n < 0 || n > 255 {
			s.failf("a signature is a list of integers from 0 to 255")
		}
		out = append(out, byte(n)) //nolint:gosec // G115: checked above
	})
	return out
}

func isRelation(s string) bool {
	switch s {
	case "related_to", "supersedes", "contradicts", "derived_from", relationReflectsOn, "derives_from":
		return true
	}
	return false
}

func (l *link) valid() bool {
	return validID(l.source) && validID(l.target) && l.source != l.target && validTime(l.createdAt) &&
		l.validFrom.validTime() && l.validUntil.validTime()
}

// weigh checks the signature of l with the key of its observer, nil if that is
// not known here.
func (l *link) weigh(key ed25519.PublicKey) standing {
	switch {
	case l.signature == nil || !l.observedBy.set || key == nil:
		return unsigned
	case len(l.signature) == ed25519.SignatureSize && ed25519.Verify(key, l.signedBytes(), l.signature):
		return attested
	}
	return forged
}

// signedBytes are what an observer signs: a CBOR map of six text keys in the
// order of their text, absent values null (wire rules for links).
func (l *link) signedBytes() []byte {
	b := []byte{0xa6}
	for _, field := range [...]struct {
		name  string
		value text
	}{
		{"dst_id", text{l.target, true}},
		{"observed_by", l.observedBy},
		{"relation", text{l.relation, true}},
		{"src_id", text{l.source, true}},
		{"valid_from", l.validFrom},
		{"valid_until", l.validUntil},
	} {
		b = appendCBORText(b, field.name)
		if field.value.set {
			b = appendCBORText(b, field.value.value)
		} else {
			b = append(b, 0xf6)
		}
	}
	return b
}

// appendCBORText appends s as a definite text with the shortest length.
func appendCBORText(b []byte, s string) []byte {
	const major = 0x60
	switch n := len(s); {
	case n < 24:
		b = append(b, major|byte(n))
	case n < 1<<8:
		b = append(b, major|24, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, major|26), uint32(n)) //nolint:gosec // G115: a body has at most 2 MiB
	}
	return append(b, s...)
}

// weighLinks decides what the signatures of a push are worth.
func (p *Peer) weighLinks(msg *message) {
	for i := range msg.links {
		l := &msg.links[i]
		if l.signature == nil || !l.observedBy.set || !validAgentID(l.observedBy.value) {
			continue
		}
		key, err := p.keys.find(l.observedBy.value)
		if err != nil {
			key = nil // no usable key: the observer is not known
		}
		l.standing = l.weigh(key)
	}
}

// linksList applies the list links: both ends must be live; a link that is
// there already stays as it is.
func linksList(perDay int) listStep[link] {
	return listStep[link]{
		list:  listLinks,
		items: func(m *message) []link { return m.links },
		describe: func(l *link) logItem {
			return logItem{op: OpLink, id: l.source, target: l.target, relation: l.relation}
		},
		apply: func(ctx context.Context, s *store, p *push, l *link, item *logItem) error {
			return s.applyLink(ctx, p, l, item, perDay)
		},
	}
}

func (s *store) applyLink(ctx context.Context, p *push, l *link, item *logItem, perDay int) error {
	if !l.valid() {
		item.skip("invalid")
		return nil
	}
	namespace, sourceLive, err := s.liveIn(ctx, l.source)
	if err != nil {
		return err
	}
	_, targetLive, err := s.liveIn(ctx, l.target)
	if err != nil {
		return err
	}
	switch {
	case !sourceLive || !targetLive:
		item.skip("no such memory")
		return nil
	case l.standing == forged:
		item.skip("bad signature")
		return nil
	}
	if l.relation == relationReflectsOn {
		circle, err := found(s.stmts.reachable.QueryRowContext(ctx, l.target, l.relation, l.source))
		if err != nil {
			return fmt.Errorf("look for a circle: %w", err)
		}
		if circle {
			item.skip("circle")
			return nil
		}
	}
	if perDay > 0 {
		author := p.msg.sender
		if l.observedBy.set {
			author = l.observedBy.value
		}
		refusal, err := s.charge(ctx, author, namespace, usage{links: 1}, limits{links: perDay})
		if err != nil {
			return err
		}
		if refusal != nil {
			item.result, item.reason = ResultQuotaRefused, quotaLinksName
			return nil
		}
	}
	done, err := s.stmts.insertLink.ExecContext(ctx, l.source, l.target, l.relation, l.createdAt, l.validFrom.orNull(),
		l.validUntil.orNull(), l.observedBy.orNull(), slices.Clip(l.signature), l.standing.String())
	if err != nil {
		return fmt.Errorf("insert link: %w", err)
	}
	return item.settle(done, ResultLinked, ResultNoop)
}
