package refpeer

import (
	"strconv"
	"strings"
)

// appendJSON appends m with every field that a daemon shows: defaults filled
// in, nulls left out, keys sorted, no blanks.
func (m *memory) appendJSON(b []byte) []byte {
	b = append(b, `{"access_count":`...)
	b = strconv.AppendInt(b, m.accessCount, 10)
	b = appendRaw(append(b, `,"citations":`...), m.citations, "[]")
	b = append(b, `,"confidence":`...)
	b = append(b, m.confidenceText...)
	b = appendNullable(b, "confidence_decayed_at", m.confidenceDecayedAt)
	if m.confidenceSignals != "" {
		b = appendRaw(append(b, `,"confidence_signals":`...), m.confidenceSignals, "")
	}
	b = appendField(b, "confidence_source", m.confidenceSource)
	b = appendField(b, "content", m.content)
	b = appendField(b, "created_at", m.createdAt)
	b = appendNullable(b, "entity_id", m.entityID)
	b = appendNullable(b, "expires_at", m.expiresAt)
	b = appendField(b, "id", m.id)
	b = appendNullable(b, "last_accessed_at", m.lastAccessedAt)
	b = appendField(b, "memory_kind", m.memoryKind)
	b = appendRaw(append(b, `,"metadata":`...), m.metadata, "{}")
	b = appendField(b, "namespace", m.namespace)
	if m.personaVersion != "" {
		b = append(append(b, `,"persona_version":`...), m.personaVersion...)
	}
	b = append(b, `,"priority":`...)
	b = strconv.AppendInt(b, m.priority, 10)
	b = append(b, `,"reflection_depth":`...)
	b = strconv.AppendInt(b, m.reflectionDepth, 10)
	b = appendField(b, "source", m.source)
	if m.sourceSpan != "" {
		b = appendRaw(append(b, `,"source_span":`...), m.sourceSpan, "")
	}
	b = appendNullable(b, "source_uri", m.sourceURI)
	b = appendRaw(append(b, `,"tags":`...), m.tags, "[]")
	b = appendField(b, "tier", m.tier)
	b = appendField(b, "title", m.title)
	b = appendField(b, "updated_at", m.updatedAt)
	b = append(b, `,"version":`...)
	b = strconv.AppendInt(b, m.version, 10)
	return append(b, '}')
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return appendString(b, value)
}

func appendCount(b []byte, name string, n int) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return strconv.AppendInt(b, int64(n), 10)
}

func appendNullable(b []byte, name string, value text) []byte {
	if !value.set {
		return b
	}
	return appendField(b, name, value.value)
}

// appendRaw appends JSON text without the blanks between its tokens; absent
// stands in for empty text.
func appendRaw(b []byte, raw, absent string) []byte {
	if raw == "" {
		return append(b, absent...)
	}
	if !strings.ContainsAny(raw, " \t\r\n") {
		return append(b, raw...)
	}
	inString := false
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case inString && c == '\\':
			b = append(b, c, raw[i+1])
			i++
			continue
		case c == '"':
			inString = !inString
		case !inString && (c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			continue
		}
		b = append(b, c)
	}
	return b
}

// appendString appends s as a JSON string with the fewest escapes.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
