package outbox_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

func embedded(vector ...float32) func(*outbox.Memory) {
	return func(m *outbox.Memory) { m.Embedding = &outbox.Embedding{Model: "mini", Vector: vector} }
}

// shipped is the embedding of each entry of m-1 after since, or nil for an entry without.
func shipped(t *testing.T, pool *pgxpool.Pool, since outbox.EntryID) (list [][]float32) {
	t.Helper()
	rows, err := pool.Query(t.Context(), `select embedding from outbox where id > $1 and key = 'm-1' order by id`, since)
	if err != nil {
		t.Fatal(err)
	}
	embeddings, err := pgx.CollectRows(rows, pgx.RowTo[json.RawMessage])
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range embeddings {
		var shipped struct {
			MemoryID string `json:"memory_id"`
			Model    string
			Dim      int
			Vector   []float32
		}
		if e != nil {
			if err := json.Unmarshal(e, &shipped); err != nil {
				t.Fatal(err)
			}
			if shipped.MemoryID != "m-1" || shipped.Model != "mini" || shipped.Dim != len(shipped.Vector) {
				t.Errorf("got %s, want the id, the model and the length of the vector", e)
			}
		}
		list = append(list, shipped.Vector)
	}
	return list
}

// What travels and what is stored after each store of one memory.
func TestEmbeddingFollowsTheContent(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	tiny, large := float32(math.SmallestNonzeroFloat32), float32(math.MaxFloat32)
	content := func(c string) func(*outbox.Memory) { return func(m *outbox.Memory) { m.Content = c } }
	for name, c := range []struct {
		change  []func(*outbox.Memory)
		shipped [][]float32 // an element for each entry
		stored  []float32
	}{
		{[]func(*outbox.Memory){embedded(0.1, tiny, -large)}, [][]float32{{0.1, tiny, -large}}, []float32{0.1, tiny, -large}},
		{nil, [][]float32{nil}, []float32{0.1, tiny, -large}},
		{[]func(*outbox.Memory){embedded(1, 2)}, [][]float32{{1, 2}}, []float32{1, 2}},
		{[]func(*outbox.Memory){in(there)}, [][]float32{nil, {1, 2}}, []float32{1, 2}},                           // moved: the peers lost it
		{[]func(*outbox.Memory){in(there), content("new")}, [][]float32{nil}, nil},                               // it was made from the old content
		{[]func(*outbox.Memory){in(there), content("newer"), embedded(3)}, [][]float32{{3}}, []float32{3}},       //
		{[]func(*outbox.Memory){in(far), content("newest")}, [][]float32{nil, nil}, nil},                         //
		{[]func(*outbox.Memory){in(far), content("last"), embedded(4, 5)}, [][]float32{{4, 5}}, []float32{4, 5}}, //
	} {
		since := newest(t, pool)
		store(t, pool, memory("m-1", c.change...))
		if diff := cmp.Diff(c.shipped, shipped(t, pool, since)); diff != "" {
			t.Errorf("store %d: shipped (-want +got):\n%s", name, diff)
		}
		var stored []float32
		err := pool.QueryRow(t.Context(), `select (select vector from memory_embeddings where memory_id = 'm-1' and dim = cardinality(vector))`).Scan(&stored)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.stored, stored); diff != "" {
			t.Errorf("store %d: stored (-want +got):\n%s", name, diff)
		}
	}
	del(t, pool, "m-1")
	if n := count(t, pool, `select count(*) from memory_embeddings`); n != 0 {
		t.Errorf("got %d embeddings of a deleted memory, want none", n)
	}
}

// The relay cuts pushes by bytes, the embeddings' among them.
func TestEmbeddingCountsInBytes(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	many := []outbox.Memory{memory("m-1", embedded(make([]float32, 4096)...)), memory("m-2")}
	must(t, pool, func(tx pgx.Tx) ([]outbox.Stored, error) { return outbox.StoreMany(t.Context(), tx, many) })
	n := count(t, pool, `
		select count(*) from undispatched u join outbox o on o.id = u.entry
		where u.bytes = octet_length(o.payload::text) + coalesce(octet_length(o.embedding::text), 0) + octet_length(o.key) + 16`)
	if n != 2 {
		t.Errorf("got %d entries with their size, want 2", n)
	}
	if got := shipped(t, pool, 0); len(got) != 1 || len(got[0]) != 4096 {
		t.Errorf("got %d embeddings shipped, want that of m-1", len(got))
	}
}

func TestEmbeddingRefusals(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	for name, e := range map[string]outbox.Embedding{
		"no model":        {Vector: []float32{1}},
		"long model":      {Model: strings.Repeat("m", 129), Vector: []float32{1}},
		"model not UTF-8": {Model: "m\xff", Vector: []float32{1}},
		"model's control": {Model: "m\x07", Vector: []float32{1}},
		"no numbers":      {Model: "mini"},
		"4097 numbers":    {Model: "mini", Vector: make([]float32, 4097)},
		"not a number":    {Model: "mini", Vector: []float32{float32(math.NaN())}},
		"infinite":        {Model: "mini", Vector: []float32{1, float32(math.Inf(-1))}},
	} {
		wantRefused(t, name, memory("m-1", func(m *outbox.Memory) { m.Embedding = &e }).Validate(), "embedding")
		if name == "not a number" || name == "infinite" || name == "model not UTF-8" {
			continue // JSON cannot say it
		}
		wire, err := json.Marshal(map[string]any{"model": e.Model, "vector": e.Vector})
		if err != nil {
			t.Fatal(err)
		}
		if err := storeSQL(t, pool, string(wire)); err == nil || !strings.Contains(err.Error(), "embedding") {
			t.Errorf("%s: memory_store: got %v, want a refusal of embedding", name, err)
		}
	}
	for _, wire := range []string{
		`[]`, `{"model": "mini", "vector": ["1"]}`, `{"model": "mini", "vector": [1e39]}`, `{"model": "mini", "vector": [1e-60]}`,
		`{"model": "mini", "vector": [1], "dim": 2}`, `{"model": "mini", "vector": [1], "memory_id": "m-2"}`, `{"model": "mini", "vector": [1], "x": 1}`,
	} {
		if err := storeSQL(t, pool, wire); err == nil || !strings.Contains(err.Error(), "embedding") {
			t.Errorf("memory_store with %s: got %v, want a refusal of embedding", wire, err)
		}
	}
	if err := storeSQL(t, pool, `{"model": "mini", "vector": [1], "dim": 1, "memory_id": "m-1"}`); err != nil {
		t.Errorf("memory_store: %v", err)
	}
}

func storeSQL(t *testing.T, pool *pgxpool.Pool, embedding string) error {
	t.Helper()
	_, err := pool.Exec(t.Context(), `
		select memory_store('{"id": "m-1", "namespace": "n", "title": "T", "content": "C", "tier": "long", "source": "api"}', $1::jsonb)`, embedding)
	return err
}
