package peer

import (
	"encoding/json"
	"unicode/utf8"
)

// Message is the body of a push: the lists of a sync_push envelope that carry entries. The receiver applies them in a fixed
// order of its own (memories, deletions, archives, restores, links, pendings, decisions, namespace entries, clears), not in
// the order of the text, and takes at most 1000 elements of each.
//
// Elements of type [json.RawMessage] are compact valid JSON objects and are copied as they are. That is the caller's promise, as
// columns of type json keep it: nothing here can fail, and an element that breaks it makes a body that peers answer with 400.
type Message struct {
	Memories            []json.RawMessage
	Embeddings          []json.RawMessage // vectors of Memories; they travel with them and are no entries of their own
	Deletions           []string          // memory ids
	Archives            []string          // memory ids
	Restores            []string          // memory ids
	Links               []json.RawMessage
	Pendings            []json.RawMessage
	PendingDecisions    []json.RawMessage
	NamespaceMeta       []json.RawMessage
	NamespaceMetaClears []string // namespaces
}

// Items returns how many elements the message carries, embeddings not counted.
func (m Message) Items() int {
	return len(m.Memories) + len(m.Deletions) + len(m.Archives) + len(m.Restores) + len(m.Links) +
		len(m.Pendings) + len(m.PendingDecisions) + len(m.NamespaceMeta) + len(m.NamespaceMetaClears)
}

// Encode returns the body as the reference sender would write it: keys in alphabetical order, "memories" always present,
// "dry_run" always false, the other lists only if they have elements. Equal messages give equal bytes. It allocates once,
// unless a text has to be escaped.
func (m Message) Encode(senderID string) []byte {
	size := len(`{"dry_run":false,"memories":[],"sender_agent_id":""}`) + len(senderID)
	for _, objects := range [...][]json.RawMessage{m.Embeddings, m.Links, m.Memories, m.NamespaceMeta, m.PendingDecisions, m.Pendings} {
		size += sizeOf(objects)
	}
	for _, texts := range [...][]string{m.Archives, m.Deletions, m.NamespaceMetaClears, m.Restores} {
		size += sizeOf(texts)
	}

	body := append(make([]byte, 0, size), '{')
	body = appendTexts(body, "archives", m.Archives)
	body = appendTexts(body, "deletions", m.Deletions)
	body = append(body, `"dry_run":false,`...)
	body = appendObjects(body, "embeddings", m.Embeddings)
	body = appendObjects(body, "links", m.Links)
	if len(m.Memories) == 0 {
		body = append(body, `"memories":[],`...)
	}
	body = appendObjects(body, "memories", m.Memories)
	body = appendObjects(body, "namespace_meta", m.NamespaceMeta)
	body = appendTexts(body, "namespace_meta_clears", m.NamespaceMetaClears)
	body = appendObjects(body, "pending_decisions", m.PendingDecisions)
	body = appendObjects(body, "pendings", m.Pendings)
	body = appendTexts(body, "restores", m.Restores)
	body = append(body, `"sender_agent_id":`...)
	body = appendString(body, senderID)
	return append(body, '}')
}

// sizeOf returns an upper bound of what a list with its key takes, unless a text has to be escaped.
func sizeOf[T string | json.RawMessage](elements []T) int {
	if len(elements) == 0 {
		return 0
	}
	size := len(`"namespace_meta_clears":[],`)
	for _, element := range elements {
		size += len(element) + len(`"",`)
	}
	return size
}

// appendObjects appends a key, its list and a comma, or nothing if the list is empty.
func appendObjects(body []byte, key string, objects []json.RawMessage) []byte {
	if len(objects) == 0 {
		return body
	}
	body = appendString(body, key)
	body = append(body, ':', '[')
	for _, object := range objects {
		body = append(body, object...)
		body = append(body, ',')
	}
	body[len(body)-1] = ']'
	return append(body, ',')
}

// appendTexts is appendObjects for strings.
func appendTexts(body []byte, key string, texts []string) []byte {
	if len(texts) == 0 {
		return body
	}
	body = appendString(body, key)
	body = append(body, ':', '[')
	for _, text := range texts {
		body = appendString(body, text)
		body = append(body, ',')
	}
	body[len(body)-1] = ']'
	return append(body, ',')
}

// appendString appends s as a JSON string with the escapes of the reference sender (serde_json): only what JSON demands.
// Bytes that are not UTF-8 become U+FFFD.
func appendString(body []byte, s string) []byte {
	const hex = "0123456789abcdef"
	body = append(body, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			body = utf8.AppendRune(body, r)
			i += size
			continue
		}
		switch {
		case c == '"' || c == '\\':
			body = append(body, '\\', c)
		case c >= ' ':
			body = append(body, c)
		case c == '\n':
			body = append(body, '\\', 'n')
		case c == '\r':
			body = append(body, '\\', 'r')
		case c == '\t':
			body = append(body, '\\', 't')
		case c == '\b':
			body = append(body, '\\', 'b')
		case c == '\f':
			body = append(body, '\\', 'f')
		default:
			body = append(body, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
		i++
	}
	return append(body, '"')
}
