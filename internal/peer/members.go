package peer

import (
	"bytes"
	"encoding/json"
)

// answer holds the members of a peer's answer that decide about the acknowledgement, as JSON text; nil if absent.
type answer struct {
	ids, quotaRefused, unsupported, skipped, dryRun []byte
}

// member returns where the member of that name is kept, or nil if it decides nothing.
func (a *answer) member(name []byte) *[]byte {
	switch string(name) {
	case "ids":
		return &a.ids
	case "quota_refused":
		return &a.quotaRefused
	case "unsupported_on_postgres":
		return &a.unsupported
	case "skipped":
		return &a.skipped
	case "dry_run":
		return &a.dryRun
	default:
		return nil
	}
}

// members reads the answer if text is one JSON object and nothing else. A member of ours that comes twice makes it none: which
// of the two counts would be anybody's guess (RFC 8259 section 4). Names are compared as they are, where encoding/json would
// take "SKIPPED" for "skipped". Each push has an answer to read, so it is read in place: the result refers to text.
func members(text []byte) (answer, bool) {
	if !isObject(text) {
		return answer{}, false
	}
	text = bytes.Trim(text, " \t\r\n")
	// From here on the text is known to be valid, so nothing below runs past its end.
	var fields answer
	for i := next(text, 1); text[i] != '}'; {
		end := endOfString(text, i)
		place := fields.member(unquote(text[i:end]))
		i = next(text, end)
		end = endOfValue(text, i)
		if place != nil {
			if *place != nil {
				return answer{}, false
			}
			*place = text[i:end]
		}
		i = next(text, end)
	}
	return fields, true
}

// isObject reports whether text is one JSON object and nothing else, whatever its members.
func isObject(text []byte) bool {
	text = bytes.Trim(text, " \t\r\n")
	return len(text) > 0 && text[0] == '{' && json.Valid(text)
}

// next returns the index of the next name, value or closing brace: it passes over blanks, one comma or one colon.
func next(text []byte, i int) int {
	for {
		switch text[i] {
		case ' ', '\t', '\r', '\n', ',', ':':
			i++
		default:
			return i
		}
	}
}

// endOfString returns the index behind the string that begins at i.
func endOfString(text []byte, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// endOfValue returns the index behind the value that begins at i.
func endOfValue(text []byte, i int) int {
	depth := 0
	for {
		switch text[i] {
		case '"':
			i = endOfString(text, i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		default:
			i += max(1, bytes.IndexAny(text[i:], "{}[]\", \t\r\n"))
		}
		if depth == 0 {
			return i
		}
	}
}

// unquote returns the content of a valid JSON string.
func unquote(text []byte) []byte {
	if bytes.IndexByte(text, '\\') < 0 {
		return text[1 : len(text)-1]
	}
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return nil
	}
	return []byte(s)
}
