package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

func consolidate(ctx context.Context, pool *pgxpool.Pool, m outbox.Memory, sources ...string) (outbox.EntryID, error) {
	return try(ctx, pool, func(tx pgx.Tx) (outbox.EntryID, error) { return outbox.Consolidate(ctx, tx, m, sources) })
}

func TestConsolidate(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("a"))
	store(t, pool, memory("b"))
	m := memory("new", func(m *outbox.Memory) {
		m.Title = "title of a" // peers delete it first
		m.CreatedAt = time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
		m.Embedding = &outbox.Embedding{Model: "mini", Vector: []float32{0.5, -1}}
	})
	since := newest(t, pool)
	entry, err := consolidate(t.Context(), pool, m, "b", "a")
	if err != nil {
		t.Fatal(err)
	}
	wantLog(t, pool, since, "consolidate team/notes new")
	got := payload(t, pool, entry)
	wantSources := []any{
		map[string]any{"id": "a", "namespace": here, "title": "title of a"},
		map[string]any{"id": "b", "namespace": here, "title": "title of b"},
	}
	if diff := cmp.Diff(wantSources, got["sources"]); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	wire := got["memory"].(map[string]any)
	if wire["id"] != "new" || wire["title"] != "title of a" || wire["created_at"] != "2025-01-02T03:04:05.000000+00:00" || wire["version"] != 1.0 ||
		wire["updated_at"].(string) < "2026" || len(wire) != 18 {
		t.Errorf("got memory %v", wire)
	}
	if n := count(t, pool, `
		select count(*) from memories m join memory_embeddings e on e.memory_id = m.id
		where m.id = 'new' and m.created_at = '2025-01-02T03:04:05Z' and e.dim = 2`); n != 1 {
		t.Errorf("got %d rows of the new memory with its embedding, want 1", n)
	}
	if n := count(t, pool, `select count(*) from memories`); n != 1 {
		t.Errorf("got %d memories, want the new one only", n)
	}
	if again := del(t, pool, "a"); again != entry {
		t.Errorf("delete of a source: got entry %d, want the consolidation's %d", again, entry)
	}
}

// The consolidation deletes at the peers what is in other lanes: it comes after everything there and after what uses the sources, and what is stored
// there next, under a source's id or title, comes after it, by the source's own delete.
func TestConsolidateAcrossLanes(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	store(t, pool, memory("a"))
	store(t, pool, memory("b", in(there)))
	store(t, pool, memory("c", in(far)))
	link(t, pool, "c", "a") // uses a source from a third lane
	store(t, pool, memory("c2", in(far)))
	store(t, pool, memory("new", in("app")))
	del(t, pool, "new") // its id was deleted in a fourth one
	since := newest(t, pool)
	if _, err := consolidate(t.Context(), pool, memory("new"), "a", "b"); err != nil {
		t.Fatal(err)
	}
	store(t, pool, memory("b2", in(there), func(m *outbox.Memory) { m.Title = "title of b" }))
	store(t, pool, memory("a", in(there)))
	wantLog(t, pool, since,
		"consolidate team/notes new < store b, link ca, delete new",
		"delete other b < consolidate new",
		"store other b2",
		"store other a < consolidate new",
	)
	if n := count(t, pool, `select count(*) from memory_links`); n != 0 {
		t.Errorf("got %d links of a deleted source, want none", n)
	}
}

func TestConsolidateRefusals(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	ctx := t.Context()
	store(t, pool, memory("a"))
	store(t, pool, memory("b"))
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprintf("m-%d", i)
	}
	for name, c := range map[string]struct {
		memory  outbox.Memory
		sources []string
		field   string
	}{
		"no sources":        {memory("new"), nil, "sources"},
		"101 sources":       {memory("new"), many, "sources"},
		"one source twice":  {memory("new"), []string{"a", "a"}, "sources"},
		"bad source":        {memory("new"), []string{"a/b"}, "sources"},
		"into a source":     {memory("a"), []string{"a"}, "sources"},
		"memory":            {memory("new", func(m *outbox.Memory) { m.Tier = "x" }), []string{"a"}, "tier"},
		"memory's embedded": {memory("new", func(m *outbox.Memory) { m.Embedding = &outbox.Embedding{Model: "x"} }), []string{"a"}, "embedding"},
	} {
		_, err := consolidate(ctx, pool, c.memory, c.sources...)
		wantRefused(t, name, err, c.field)
	}
	if _, err := pool.Exec(ctx, `select memory_consolidate('{"id": "new", "namespace": "n", "title": "t", "content": "c", "tier": "long", "source": "api"}', '{a,a}')`); err == nil || !strings.Contains(err.Error(), "distinct") {
		t.Errorf("SQL: got %v, want a refusal", err)
	}
	if _, err := consolidate(ctx, pool, memory("new"), "a", "gone"); !errors.Is(err, outbox.ErrNotFound) || !strings.Contains(err.Error(), "no memory gone") {
		t.Errorf("unknown source: got %v, want %v that names it", err, outbox.ErrNotFound)
	}
	if _, err := consolidate(ctx, pool, memory("b"), "a"); !errors.Is(err, outbox.ErrLive) {
		t.Errorf("into a live memory: got %v, want %v", err, outbox.ErrLive)
	}
	if _, err := consolidate(ctx, pool, memory("new", func(m *outbox.Memory) { m.Title = "title of b" }), "a"); !errors.Is(err, outbox.ErrTitleTaken) {
		t.Errorf("title of another: got %v, want %v", err, outbox.ErrTitleTaken)
	}
	if n := count(t, pool, `select count(*) from memories where id in ('a', 'b')`); n != 2 {
		t.Errorf("got %d memories after the refusals, want both", n)
	}
}

// Of a consolidation and a delete of its source the second waits, and finds the source gone.
func TestConsolidateAgainstDelete(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		deleteFirst bool
		want        []string
	}{
		"delete first":        {true, []string{"delete other b"}},
		"consolidation first": {false, []string{"consolidate team/notes new < store b", "delete other b < consolidate new"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := pgtest.New(t)
			store(t, pool, memory("a"))
			store(t, pool, memory("b", in(there)))
			since := newest(t, pool)
			ctx := context.WithoutCancel(t.Context())
			var deleted outbox.EntryID
			remove := func(tx pgx.Tx) (err error) { deleted, err = outbox.Delete(ctx, tx, "b"); return err }
			merge := func(tx pgx.Tx) error {
				_, err := outbox.Consolidate(ctx, tx, memory("new"), []string{"a", "b"})
				return err
			}
			if c.deleteFirst {
				if err := during(t, pool, remove, merge); !errors.Is(err, outbox.ErrNotFound) {
					t.Errorf("got %v, want %v", err, outbox.ErrNotFound)
				}
			} else {
				if err := during(t, pool, merge, remove); err != nil {
					t.Fatal(err)
				}
				if deleted != newest(t, pool) {
					t.Errorf("delete: got entry %d, want the source's own delete", deleted)
				}
			}
			wantLog(t, pool, since, c.want...)
		})
	}
}
