//go:build unix

package bench

import (
	"encoding/json"
	"fmt"
	"time"

	"quorumbox/outbox"
)

// row is a row of the table memories for those who do without the package outbox, and with its tags the memory as a peer is sent it.
// Pointers are null where the memory does not say.
type row struct {
	ID                  string          `json:"id"`
	Namespace           string          `json:"namespace"`
	Title               string          `json:"title"`
	Tier                string          `json:"tier"`
	Content             string          `json:"content"`
	Tags                []string        `json:"tags"`
	Priority            int             `json:"priority"`
	Confidence          float64         `json:"confidence"`
	Source              string          `json:"source"`
	AccessCount         int64           `json:"access_count"`
	CreatedAt           time.Time       `json:"created_at"`
	UpdatedAt           time.Time       `json:"updated_at"`
	LastAccessedAt      *time.Time      `json:"last_accessed_at,omitzero"`
	ExpiresAt           *time.Time      `json:"expires_at,omitzero"`
	EntityID            *string         `json:"entity_id,omitzero"`
	PersonaVersion      *int32          `json:"persona_version,omitzero"`
	SourceURI           *string         `json:"source_uri,omitzero"`
	SourceSpan          json.RawMessage `json:"source_span,omitzero"`
	ConfidenceSignals   json.RawMessage `json:"confidence_signals,omitzero"`
	ConfidenceDecayedAt *time.Time      `json:"confidence_decayed_at,omitzero"`
	Metadata            json.RawMessage `json:"metadata"`
	ReflectionDepth     int32           `json:"reflection_depth"`
	MemoryKind          string          `json:"memory_kind"`
	Citations           json.RawMessage `json:"citations"`
	ConfidenceSource    string          `json:"confidence_source"`
	Version             int64           `json:"version"`
}

// newRow fills in the defaults of [outbox.Memory].
func newRow(m outbox.Memory, now time.Time) (row, error) {
	now = now.UTC().Truncate(time.Microsecond)
	r := row{
		ID: m.ID, Namespace: m.Namespace, Title: m.Title, Tier: or(m.Tier, "mid"), Content: m.Content, Tags: m.Tags,
		Priority: or(m.Priority, 5), Confidence: 1, Source: or(m.Source, "api"), AccessCount: m.AccessCount,
		CreatedAt: or(m.CreatedAt, now), UpdatedAt: or(m.UpdatedAt, now),
		LastAccessedAt: some(m.LastAccessedAt), ExpiresAt: some(m.ExpiresAt), EntityID: some(m.EntityID), PersonaVersion: m.PersonaVersion,
		SourceURI: some(m.SourceURI), SourceSpan: m.SourceSpan, ConfidenceSignals: m.ConfidenceSignals,
		ConfidenceDecayedAt: some(m.ConfidenceDecayedAt), Metadata: m.Metadata, ReflectionDepth: m.ReflectionDepth,
		MemoryKind: or(m.MemoryKind, "observation"), Citations: json.RawMessage("[]"),
		ConfidenceSource: or(m.ConfidenceSource, "caller_provided"), Version: 1,
	}
	if r.Tags == nil {
		r.Tags = []string{}
	}
	if m.Confidence != nil {
		r.Confidence = *m.Confidence
	}
	if len(r.Metadata) == 0 {
		r.Metadata = json.RawMessage("{}")
	}
	if len(m.Citations) > 0 {
		citations, err := json.Marshal(m.Citations)
		if err != nil {
			return row{}, fmt.Errorf("encode citations: %w", err)
		}
		r.Citations = citations
	}
	return r, nil
}

func or[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func some[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
