package outbox

import (
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// Limits of an embedding.
const (
	MaxModelBytes = 128
	MaxDimensions = 4096
)

// Embedding is the vector of a memory's content, as Model made it. A receiver uses it if that is its own model, and makes its own otherwise.
type Embedding struct {
	Model  string    `json:"model"`  // 1..128 bytes
	Vector []float32 `json:"vector"` // 1..4096 finite numbers
}

func (e *Embedding) validate() error {
	const field = "embedding"
	switch {
	case e.Model == "" || len(e.Model) > MaxModelBytes:
		return &InvalidError{field, fmt.Sprintf("model must be text of 1 to %d bytes", MaxModelBytes)}
	case !utf8.ValidString(e.Model) || hasControl(e.Model):
		return &InvalidError{field, "model must be UTF-8 without control characters"}
	case len(e.Vector) < 1 || len(e.Vector) > MaxDimensions:
		return &InvalidError{field, fmt.Sprintf("vector must be 1 to %d numbers", MaxDimensions)}
	case slices.ContainsFunc(e.Vector, func(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }):
		return &InvalidError{field, "vector must be finite numbers"}
	}
	return nil
}

// json is e as the SQL functions take it: null for none.
func (e *Embedding) json() (*string, error) {
	if e == nil {
		return nil, nil
	}
	b, err := marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode embedding: %w", err)
	}
	return new(string(b)), nil
}
