package refpeer_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/refpeer"
)

func embeddingOf(id string, dim int, vector ...float64) map[string]any {
	return map[string]any{"memory_id": id, "model": "model", "dim": dim, "vector": vector}
}

// TestEmbeddings covers which vectors are kept and which are to be made again.
func TestEmbeddings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		dim       int
		embedding map[string]any
		log       string
	}{
		{"fits", 2, embeddingOf("m-1", 2, 0.6, 0.8), "embedding m-1 embedded"},
		{"not of norm 1", 2, embeddingOf("m-1", 2, 3, 4), "embedding m-1 embedded"},
		{"another dimension", 3, embeddingOf("m-1", 2, 0.6, 0.8), "embedding m-1 reembed"},
		{"dimension is wrong", 2, embeddingOf("m-1", 3, 0.6, 0.8), "embedding m-1 reembed"},
		{"too few numbers", 2, embeddingOf("m-1", 2, 1), "embedding m-1 reembed"},
		{"all zero", 2, embeddingOf("m-1", 2, 0, 0), "embedding m-1 reembed"},
		{"not finite in 32 bits", 2, embeddingOf("m-1", 2, 1e300, 0), "embedding m-1 reembed"},
		{"no model", 0, embeddingOf("m-1", 2, 0.6, 0.8), "embedding m-1 noop no model"},
		{
			"no such memory", 2, embeddingOf("x", 2, 0.6, 0.8),
			"embedding x noop no such memory in the namespaces of the push",
		},
		{
			"a memory of another namespace", 2, embeddingOf("far", 2, 0.6, 0.8),
			"embedding far noop no such memory in the namespaces of the push",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			peer := openPeer(t, refpeer.Config{EmbeddingDim: tt.dim})
			store(t, peer, fields{"id": "far", "title": "far", "namespace": "far"})
			wantCounts(t, peer, "push", fields{
				"memories": []any{json.RawMessage(memoryJSON(t, nil))}, "embeddings": []any{tt.embedding},
			}, map[string]int{"applied": 1})
			if got := last(t, peer); got != tt.log {
				t.Errorf("log: got %q, want %q", got, tt.log)
			}
			var want []refpeer.Embedding
			reembed := peer.Counters().Results[refpeer.ResultReembed]
			if peer.Counters().Results[refpeer.ResultEmbedded] == 1 {
				want = []refpeer.Embedding{{MemoryID: "m-1", Dim: 2, Model: "model"}}
			}
			if got := state(t, peer).Embeddings; len(got) != len(want) || len(want) == 1 && !cmp.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if got := peer.Counters().Reembed; got != reembed {
				t.Errorf("to_reembed: got %d, want %d", got, reembed)
			}
		})
	}
}

// TestEmbeddingFollowsContent wants the vector of a content that is gone to go,
// and that of a content that stays to stay: also after reopening.
func TestEmbeddingFollowsContent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := refpeer.Config{DataDir: dir, EmbeddingDim: 2}
	peer, err := refpeer.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	push := func(peer *refpeer.Peer, content string, second int, embeddings ...any) {
		t.Helper()
		memory := memoryJSON(t, fields{"content": content, "updated_at": timestamp(second)})
		apply(t, peer, fields{"memories": []any{json.RawMessage(memory)}, "embeddings": append([]any{}, embeddings...)})
	}
	want := func(peer *refpeer.Peer, when string, n int) {
		t.Helper()
		if got := len(state(t, peer).Embeddings); got != n {
			t.Errorf("%s: got %d embeddings, want %d", when, got, n)
		}
	}
	push(peer, "one", 1, embeddingOf("m-1", 2, 1, 0))
	want(peer, "shipped", 1)
	push(peer, "one", 2)
	want(peer, "same content", 1)
	push(peer, "older", 0)
	want(peer, "content that lost", 1)
	push(peer, "two", 3, embeddingOf("m-1", 2, 0, 1))
	want(peer, "new content with a vector", 1)
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	peer = openPeer(t, cfg)
	push(peer, "three", 4)
	want(peer, "new content without a vector", 0)
}
