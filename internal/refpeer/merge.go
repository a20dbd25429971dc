package refpeer

import (
	"encoding/json"
)

// winsOver tells whether m, just received, beats the stored row: by updated_at
// compared as text, then by the larger id. A row never beats itself.
func (m *memory) winsOver(stored *memory) bool {
	if m.updatedAt != stored.updatedAt {
		return m.updatedAt > stored.updatedAt
	}
	return m.id > stored.id
}

// merge returns the row that results when in arrives for the key (title,
// namespace) of stored. The stored id stays.
//
// Rules (reference 0.7.x, insert_if_newer): content, tags, source, citations,
// confidence source and signals, metadata are the winner's, but the stored
// author is kept; priority, confidence, access count and reflection depth are
// the larger ones; the tier only rises; updated_at is the later one; the kind
// is the last arrival's unless the stored one is reflection or persona; a long
// tier has no expiry, otherwise the last arrival's counts if it has one; entity
// and persona version keep the first value; source URI and span take the
// arriving value if there is one; version, created_at, last_accessed_at stay.
func merge(stored, in memory) (memory, error) {
	out := stored
	if in.winsOver(&stored) {
		out.content, out.tags, out.source, out.citations = in.content, in.tags, in.source, in.citations
		out.confidenceSource, out.confidenceSignals = in.confidenceSource, in.confidenceSignals
		out.confidenceDecayedAt = in.confidenceDecayedAt
		out.updatedAt = in.updatedAt
		out.metadata, out.metadataAgent, out.metadataScope = in.metadata, in.metadataAgent, in.metadataScope
		if stored.metadataAgent.set && stored.metadataAgent != in.metadataAgent {
			metadata, err := withMetadata(in.metadata, "agent_id", stored.metadataAgent.value)
			if err != nil {
				return memory{}, err
			}
			out.metadata, out.metadataAgent = metadata, stored.metadataAgent
		}
	}
	out.priority = max(stored.priority, in.priority)
	if in.confidence > stored.confidence {
		out.confidence, out.confidenceText = in.confidence, in.confidenceText
	}
	out.accessCount = max(stored.accessCount, in.accessCount)
	out.reflectionDepth = max(stored.reflectionDepth, in.reflectionDepth)
	if tierRank(in.tier) > tierRank(stored.tier) {
		out.tier = in.tier
	}
	if stored.memoryKind != kindReflection && stored.memoryKind != kindPersona {
		out.memoryKind = in.memoryKind
	}
	switch {
	case out.tier == tierLong:
		out.expiresAt = text{}
	case in.expiresAt.set:
		out.expiresAt = in.expiresAt
	}
	if !stored.entityID.set {
		out.entityID = in.entityID
	}
	if stored.personaVersion == "" {
		out.personaVersion = in.personaVersion
	}
	if in.sourceURI.set {
		out.sourceURI = in.sourceURI
	}
	if in.sourceSpan != "" {
		out.sourceSpan = in.sourceSpan
	}
	return out, nil
}

// withMetadata returns the JSON object metadata with one key set to a string.
func withMetadata(metadata, key, value string) (string, error) {
	fields := map[string]json.RawMessage{}
	if metadata != "" {
		if err := json.Unmarshal([]byte(metadata), &fields); err != nil {
			return "", err
		}
	}
	fields[key] = appendString(nil, value)
	out, err := json.Marshal(fields)
	return string(out), err
}
