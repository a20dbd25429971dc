package refpeer

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep JSON may nest before a body is refused, as the
// reference's parser does.
const maxDepth = 128

// errSyntax is wrapped by every complaint about malformed JSON.
var errSyntax = errors.New("invalid JSON")

// scanner reads one JSON text front to back. It keeps the first error and
// turns every later call into a no-op, so that callers check err once. It
// exists because a push is decoded on the hot path: strings without escapes
// are substrings of the body, and values nobody needs are only walked over.
//
// The text must be valid UTF-8; the caller checks that.
type scanner struct {
	text string
	pos  int
	err  error
}

func (s *scanner) fail(what string) {
	if s.err == nil {
		s.err = fmt.Errorf("%w: %s at byte %d", errSyntax, what, s.pos)
	}
}

// failf records an error that is not about syntax: a missing field, an
// unknown enum text, a wrong type.
func (s *scanner) failf(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
	}
}

func (s *scanner) space() {
	for s.pos < len(s.text) {
		switch s.text[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the first byte of the next value, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.err != nil || s.pos >= len(s.text) {
		return 0
	}
	return s.text[s.pos]
}

func (s *scanner) expect(c byte) bool {
	if s.peek() != c {
		s.fail("expected " + strconv.QuoteRune(rune(c)))
		return false
	}
	s.pos++
	return true
}

// end checks that nothing but blanks follows.
func (s *scanner) end() {
	if s.peek() != 0 || s.pos < len(s.text) {
		s.fail("text after the value")
	}
}

// object calls field for every key. field must consume the value.
func (s *scanner) object(field func(key string)) {
	if !s.expect('{') {
		return
	}
	if s.peek() == '}' {
		s.pos++
		return
	}
	for s.err == nil {
		key := s.str()
		if !s.expect(':') {
			return
		}
		field(key)
		switch s.peek() {
		case ',':
			s.pos++
		case '}':
			s.pos++
			return
		default:
			s.fail("expected ',' or '}'")
		}
	}
}

// array calls item for every element. item must consume the value.
func (s *scanner) array(item func()) {
	if !s.expect('[') {
		return
	}
	if s.peek() == ']' {
		s.pos++
		return
	}
	for s.err == nil {
		item()
		switch s.peek() {
		case ',':
			s.pos++
		case ']':
			s.pos++
			return
		default:
			s.fail("expected ',' or ']'")
		}
	}
}

// str returns the next value, which must be a string, without its escapes.
func (s *scanner) str() string {
	if !s.expect('"') {
		return ""
	}
	start := s.pos
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; {
		case c == '"':
			s.pos++
			return s.text[start : s.pos-1]
		case c == '\\':
			return s.escaped(start)
		case c < 0x20:
			s.fail("control character in a string")
			return ""
		default:
			s.pos++
		}
	}
	s.fail("unfinished string")
	return ""
}

// escaped finishes a string whose first backslash is at pos.
func (s *scanner) escaped(start int) string {
	var b strings.Builder
	b.WriteString(s.text[start:s.pos])
	for s.pos < len(s.text) && s.err == nil {
		c := s.text[s.pos]
		s.pos++
		switch {
		case c == '"':
			return b.String()
		case c < 0x20:
			s.fail("control character in a string")
		case c != '\\':
			b.WriteByte(c)
		default:
			s.escape(&b)
		}
	}
	s.fail("unfinished string")
	return ""
}

func (s *scanner) escape(b *strings.Builder) {
	if s.pos >= len(s.text) {
		return
	}
	c := s.text[s.pos]
	s.pos++
	switch c {
	case '"', '\\', '/':
		b.WriteByte(c)
	case 'b':
		b.WriteByte('\b')
	case 'f':
		b.WriteByte('\f')
	case 'n':
		b.WriteByte('\n')
	case 'r':
		b.WriteByte('\r')
	case 't':
		b.WriteByte('\t')
	case 'u':
		r := s.hex4()
		if utf16.IsSurrogate(r) {
			if !strings.HasPrefix(s.text[s.pos:], `\u`) {
				s.fail("lone surrogate")
				return
			}
			s.pos += 2
			if r = utf16.DecodeRune(r, s.hex4()); r == utf8.RuneError {
				s.fail("lone surrogate")
				return
			}
		}
		b.WriteRune(r)
	default:
		s.fail("unknown escape")
	}
}

func (s *scanner) hex4() rune {
	if s.pos+4 > len(s.text) {
		s.fail("unfinished escape")
		return 0
	}
	n, err := strconv.ParseUint(s.text[s.pos:s.pos+4], 16, 16)
	if err != nil {
		s.fail("bad escape")
		return 0
	}
	s.pos += 4
	return rune(n)
}

// number returns the text of the next value, which must be a number, and
// whether it is written as an integer.
func (s *scanner) number() (text string, integer bool) {
	s.space()
	start := s.pos
	if s.pos < len(s.text) && s.text[s.pos] == '-' {
		s.pos++
	}
	first := s.pos
	if s.digits() == 0 {
		s.fail("expected a number")
		return "", false
	}
	if s.text[first] == '0' && s.pos-first > 1 {
		s.fail("number with a leading zero")
		return "", false
	}
	integer = true
	if s.pos < len(s.text) && s.text[s.pos] == '.' {
		integer = false
		s.pos++
		if s.digits() == 0 {
			s.fail("number without digits after the point")
		}
	}
	if s.pos < len(s.text) && (s.text[s.pos] == 'e' || s.text[s.pos] == 'E') {
		integer = false
		s.pos++
		if s.pos < len(s.text) && (s.text[s.pos] == '+' || s.text[s.pos] == '-') {
			s.pos++
		}
		if s.digits() == 0 {
			s.fail("number without digits in the exponent")
		}
	}
	return s.text[start:s.pos], integer
}

func (s *scanner) digits() int {
	start := s.pos
	for s.pos < len(s.text) && s.text[s.pos] >= '0' && s.text[s.pos] <= '9' {
		s.pos++
	}
	return s.pos - start
}

// integer returns the next value, which must be a JSON integer of at most
// bits bits.
func (s *scanner) integer(field string, bits int) int64 {
	text, isInt := s.number()
	if s.err != nil {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, bits)
	if !isInt || err != nil {
		s.failf("%s must be an integer of %d bits", field, bits)
	}
	return n
}

// float returns the next value, which must be a number, and its text.
func (s *scanner) float(field string) (float64, string) {
	text, _ := s.number()
	if s.err != nil {
		return 0, ""
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(f, 0) {
		s.failf("%s is out of range", field)
	}
	return f, text
}

// boolean returns the next value, which must be true or false.
func (s *scanner) boolean(field string) bool {
	switch s.peek() {
	case 't':
		s.literal("true")
		return true
	case 'f':
		s.literal("false")
	default:
		s.failf("%s must be true or false", field)
	}
	return false
}

// null consumes a null, if that is the next value.
func (s *scanner) null() bool {
	if s.peek() != 'n' {
		return false
	}
	s.literal("null")
	return s.err == nil
}

func (s *scanner) literal(word string) {
	if !strings.HasPrefix(s.text[s.pos:], word) {
		s.fail("unknown word")
		return
	}
	s.pos += len(word)
}

// raw walks over the next value and returns its text and how deep it nests:
// 0 for a scalar, 1 for a list or object of scalars.
func (s *scanner) raw() (text string, depth int) {
	s.space()
	start := s.pos
	depth = s.skip(0)
	return s.text[start:s.pos], depth
}

func (s *scanner) skip(level int) int {
	if level > maxDepth {
		s.fail("nested too deeply")
		return level
	}
	deepest := 0
	switch s.peek() {
	case '{':
		s.object(func(string) { deepest = max(deepest, s.skip(level+1)) })
		return deepest + 1
	case '[':
		s.array(func() { deepest = max(deepest, s.skip(level+1)) })
		return deepest + 1
	case '"':
		s.str()
	case 't':
		s.literal("true")
	case 'f':
		s.literal("false")
	case 'n':
		s.literal("null")
	default:
		s.number()
	}
	return 0
}
