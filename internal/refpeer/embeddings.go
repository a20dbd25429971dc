package refpeer

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
)

// normTolerance is how far a vector's norm may be from 1 before it is scaled.
const normTolerance = 1e-3

// embedding is one element of the list embeddings: a vector that the sender
// made for a memory.
type embedding struct {
	memoryID, model string
	dim             int64
	vector          []float32
}

func (s *scanner) embedding() embedding {
	var e embedding
	s.element("embedding", []string{"memory_id", "model", "dim", "vector"}, func(key string) bool {
		switch key {
		case "memory_id":
			e.memoryID = s.str()
		case "model":
			e.model = s.str()
		case "dim":
			e.dim = s.integer(key, 64)
		case "vector":
			s.array(func() {
				f, _ := s.float(key)
				e.vector = append(e.vector, float32(f))
			})
		default:
			return false
		}
		return true
	})
	return e
}

// unit returns the vector with norm 1, nil if there is none: a number is not
// finite, or all are zero.
func unit(vector []float32) []float32 {
	var sum float64
	for _, f := range vector {
		sum += float64(f) * float64(f)
	}
	norm := math.Sqrt(sum)
	if norm == 0 || math.IsNaN(norm) || math.IsInf(norm, 0) {
		return nil
	}
	if math.Abs(norm-1) <= normTolerance {
		return vector
	}
	out := make([]float32, len(vector))
	for i, f := range vector {
		out[i] = float32(float64(f) / norm)
	}
	return out
}

// embeddingsStep applies the list embeddings for a receiver whose model has
// dim dimensions; 0 means that it has no model and keeps nothing. What does not
// fit would be embedded again by a daemon, after its answer: it is only counted.
func embeddingsStep(dim int) step {
	return func(ctx context.Context, s *store, p *push, out *outcome) error {
		if len(p.msg.embeddings) == 0 {
			return nil
		}
		pushed := make(map[string]struct{}, 1)
		for i := range p.msg.memories {
			pushed[p.msg.memories[i].namespace] = struct{}{}
		}
		for i := range p.msg.embeddings {
			e := &p.msg.embeddings[i]
			item := logItem{op: OpEmbedding, id: e.memoryID, result: ResultNoop}
			namespace, live, err := s.liveIn(ctx, e.memoryID)
			if err != nil {
				return err
			}
			_, ours := pushed[namespace]
			vector := unit(e.vector)
			switch {
			case dim == 0:
				item.reason = "no model"
			case !live || !ours:
				item.reason = "no such memory in the namespaces of the push"
			case e.dim != int64(dim) || len(e.vector) != dim || vector == nil:
				item.result = ResultReembed
			default:
				if err := s.putEmbedding(ctx, e, vector); err != nil {
					return err
				}
				item.result = ResultEmbedded
			}
			s.note(out, item)
		}
		return nil
	}
}

func (s *store) putEmbedding(ctx context.Context, e *embedding, vector []float32) error {
	packed := make([]byte, 0, 4*len(vector))
	for _, f := range vector {
		packed = binary.LittleEndian.AppendUint32(packed, math.Float32bits(f))
	}
	if _, err := s.stmts.upsertEmbedding.ExecContext(ctx, e.memoryID, e.model, e.dim, packed); err != nil {
		return fmt.Errorf("store embedding: %w", err)
	}
	s.mayEmbed = true
	return nil
}

// forgetEmbedding drops the embedding of a content that is gone.
func (s *store) forgetEmbedding(ctx context.Context, id string) error {
	if !s.mayEmbed {
		return nil
	}
	if _, err := s.stmts.dropEmbedding.ExecContext(ctx, id); err != nil {
		return fmt.Errorf("drop embedding: %w", err)
	}
	return nil
}
