package demo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"quorumbox/internal/jsonsame"
)

// memoriesSQL writes each memory of the store as the JSON object that the protocol has for it, all 26 fields, null where there is none.
const memoriesSQL = `
	select json_build_object(
		'id', id, 'tier', tier, 'namespace', namespace, 'title', title, 'content', content, 'tags', tags, 'priority', priority,
		'confidence', confidence, 'source', source, 'access_count', access_count, 'created_at', memory_time(created_at),
		'updated_at', memory_time(updated_at), 'last_accessed_at', memory_time(last_accessed_at), 'expires_at', memory_time(expires_at),
		'entity_id', entity_id, 'persona_version', persona_version, 'source_uri', source_uri, 'source_span', source_span,
		'confidence_signals', confidence_signals, 'confidence_decayed_at', memory_time(confidence_decayed_at), 'metadata', metadata,
		'reflection_depth', reflection_depth, 'memory_kind', memory_kind, 'citations', citations, 'confidence_source', confidence_source,
		'version', version)::text
	from memories`

// fieldKind says when two values of a field are the same.
type fieldKind int

const (
	plain   fieldKind = iota // as JSON: numbers by value, objects without regard to order
	instant                  // the same moment, however it is written
	version                  // the same, or an earlier one: see mayKeepVersion
)

// fields are the 26 fields of a memory.
func fields() map[string]fieldKind {
	all := map[string]fieldKind{
		"created_at": instant, "updated_at": instant, "last_accessed_at": instant, "expires_at": instant, "confidence_decayed_at": instant,
		"version": version,
	}
	for _, name := range []string{
		"id", "tier", "namespace", "title", "content", "tags", "priority", "confidence", "source", "access_count", "entity_id",
		"persona_version", "source_uri", "source_span", "confidence_signals", "metadata", "reflection_depth", "memory_kind", "citations",
		"confidence_source",
	} {
		all[name] = plain
	}
	return all
}

// Difference is one field in which a peer's memory is not the store's. Values are not part of it.
type Difference struct {
	ID    string `json:"id"`
	Field string `json:"field"` // "row": missing at the peer; "extra row": not in the store
}

func (d Difference) String() string { return d.ID + ": " + d.Field }

// comparison is how two objects compare.
type comparison struct {
	different  []string // names of fields, sorted
	byProtocol bool     // the peer's memory differs in what the protocol makes a receiver do, too
}

// compare compares a memory of the store with a peer's, both JSON objects. An absent field is a null one. A field of the peer that is none of
// the 26 counts as different. sender is who the peer knows as the sender of both.
//
// Two things are the peer's by the protocol, version 0.7.x: it keeps the version number with which it got a memory first, and it notes the
// sender of a reflection in its metadata.
func compare(sender string, store, peer []byte) (comparison, error) {
	a, err := decodeObject(store)
	if err != nil {
		return comparison{}, fmt.Errorf("memory of the store: %w", err)
	}
	b, err := decodeObject(peer)
	if err != nil {
		return comparison{}, fmt.Errorf("memory of the peer: %w", err)
	}
	c := comparison{byProtocol: removeStamp(sender, a, b)}
	known := fields()
	for name, kind := range known {
		x, y := a[name], b[name]
		switch {
		case jsonsame.Values(x, y):
		case kind == instant && sameInstant(x, y):
		case kind == version && mayKeepVersion(x, y):
			c.byProtocol = true
		default:
			c.different = append(c.different, name)
		}
	}
	for name := range b {
		if _, ok := known[name]; !ok {
			c.different = append(c.different, name)
		}
	}
	slices.Sort(c.different)
	return c, nil
}

// removeStamp takes the receiver's note of the sender out of a reflection's metadata, and reports whether there was one that the store
// does not have.
func removeStamp(sender string, store, peer map[string]any) bool {
	const stamp = "reflection_origin"
	ours, okOurs := store["metadata"].(map[string]any)
	theirs, okTheirs := peer["metadata"].(map[string]any)
	if !okOurs || !okTheirs || store["memory_kind"] != "reflection" || theirs[stamp] != sender {
		return false
	}
	added := ours[stamp] != sender
	delete(ours, stamp)
	delete(theirs, stamp)
	return added
}

func decodeObject(text []byte) (map[string]any, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil {
		return nil, err
	}
	return object, nil
}

func sameInstant(a, b any) bool {
	x, okX := a.(string)
	y, okY := b.(string)
	if !okX || !okY {
		return false
	}
	at, errX := time.Parse(time.RFC3339Nano, x)
	other, errY := time.Parse(time.RFC3339Nano, y)
	return errX == nil && errY == nil && at.Equal(other)
}

// mayKeepVersion reports whether the peer's version is an earlier one of the store's. A receiver of version 0.7.x keeps the number with which
// it got a memory first; updates do not change it.
func mayKeepVersion(store, peer any) bool {
	x, okX := store.(json.Number)
	y, okY := peer.(json.Number)
	if !okX || !okY {
		return false
	}
	n, errX := x.Int64()
	k, errY := y.Int64()
	return errX == nil && errY == nil && 1 <= k && k < n
}
