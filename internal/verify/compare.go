package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"quorumbox/internal/jsonsame"
	"quorumbox/internal/peer"
)

// longestJSON bounds the tags and metadata that are compared: what a store can have is shorter, however a peer escapes it.
const longestJSON = 512 << 10

// differentFields names the fields in which a peer's live memory is not the store's, of those that have to be the same everywhere.
func differentFields(ours row, theirs peer.StoredMemory) []string {
	var fields []string
	check := func(name string, same bool) {
		if !same {
			fields = append(fields, name)
		}
	}
	sum := sha256.Sum256([]byte(theirs.Content))
	check("namespace", ours.Namespace == theirs.Namespace)
	check("title", ours.Title == theirs.Title)
	check("content", bytes.Equal(ours.Content, sum[:]))
	check("tags", len(theirs.Tags) <= longestJSON && jsonsame.Texts(ours.Tags, orEmpty(theirs.Tags, "[]")))
	check("source", ours.Source == theirs.Source)
	check("updated_at", ours.UpdatedAt == theirs.UpdatedAt) // peers compare it as text
	check("metadata", sameMetadata(ours.Metadata, theirs.Metadata))
	return fields
}

// orEmpty is text, or what a receiver takes for a field that is absent.
func orEmpty(text []byte, empty string) []byte {
	if len(text) == 0 || string(text) == "null" {
		return []byte(empty)
	}
	return text
}

// sameMetadata compares without the receiver's own note of who sent a reflection.
func sameMetadata(ours, theirs []byte) bool {
	if len(theirs) > longestJSON {
		return false
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(orEmpty(theirs, "{}"), &members) != nil {
		return false
	}
	delete(members, "reflection_origin")
	text, err := json.Marshal(members)
	return err == nil && jsonsame.Texts(ours, text)
}

// isID reports whether a text can be a memory's id, and part of a path.
func isID(id string) bool {
	return id != "" && id != "." && len(id) <= 128 && !strings.Contains(id, "..") &&
		strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_:.@-") == ""
}

// isNamespace reports whether a text can be a namespace: what else a peer names is none of the store's.
func isNamespace(ns string) bool {
	return ns != "" && len(ns) <= 2048 && !strings.ContainsFunc(ns, func(c rune) bool {
		return !unicode.IsGraphic(c) || unicode.IsSpace(c) || c == utf8.RuneError
	})
}

// isAgent reports whether a text can be an agent's id, and the value of a header.
func isAgent(id string) bool {
	return id != "" && len(id) <= 128 &&
		strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-:@./") == ""
}
