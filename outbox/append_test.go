package outbox_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/pgtest"
	"quorumbox/outbox"
)

const (
	appMemory = `{"id":"x-1","namespace":"app","title":"T","content":"C","tier":"long","source":"api","updated_at":"2025-01-02T03:04:05Z"}`
	appAction = `{"id":"p","action_type":"t","namespace":"app","payload":{"a":null},"requested_by":"ai:a","requested_at":"2025-01-02T03:04:05Z","memory_id":null}`
	appTime   = "2025-01-02T03:04:05.000000+00:00"
)

func appendEntry(t *testing.T, pool *pgxpool.Pool, e outbox.Entry) (outbox.EntryID, error) {
	t.Helper()
	return try(t.Context(), pool, func(tx pgx.Tx) (outbox.EntryID, error) { return outbox.Append(t.Context(), tx, e) })
}

func TestAppendCompletesEachKind(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	completed := map[string]any{
		"id": "x-1", "namespace": "app", "title": "T", "content": "C", "tier": "long", "source": "api", "tags": []any{}, "priority": 5.0,
		"confidence": 1.0, "access_count": 0.0, "metadata": map[string]any{}, "reflection_depth": 0.0, "memory_kind": "observation",
		"citations": []any{}, "confidence_source": "caller_provided", "version": 1.0, "created_at": appTime, "updated_at": appTime,
	}
	given := strings.Replace(appMemory, `"updated_at"`, `"created_at":"2025-01-02T03:04:05Z","updated_at"`, 1)
	for _, c := range []struct {
		kind         outbox.Kind
		key, payload string
		want         map[string]any
	}{
		{outbox.KindStore, "x-1", given, completed},
		{outbox.KindArchive, "x-1", given, completed},
		{outbox.KindRestore, "x-1", given, completed},
		{outbox.KindDelete, "x-1", "", nil},
		{outbox.KindDelete, "x-1", `{"title":"T"}`, map[string]any{"title": "T"}},
		{
			outbox.KindLink, "ab", `{"source_id":"a","target_id":"b","relation":"related_to","created_at":"2025-01-02T03:04:05Z","valid_from":"2025-01-02T03:04:05Z","signature":null}`,
			map[string]any{"source_id": "a", "target_id": "b", "relation": "related_to", "created_at": appTime, "valid_from": "2025-01-02T03:04:05Z"},
		},
		{
			outbox.KindConsolidate, "x-1", `{"memory":` + given + `,"sources":[{"id":"a","namespace":"other","title":"A"}]}`,
			map[string]any{"memory": completed, "sources": []any{map[string]any{"id": "a", "namespace": "other", "title": "A"}}},
		},
		{
			outbox.KindPending, "p", appAction,
			map[string]any{
				"id": "p", "action_type": "t", "namespace": "app", "payload": map[string]any{"a": nil}, "requested_by": "ai:a",
				"requested_at": appTime, "status": "pending", "approvals": []any{},
			},
		},
		{
			outbox.KindDecision, "p", `{"id":"p","approved":true,"decider":"ai:a"}`,
			map[string]any{"id": "p", "approved": true, "decider": "ai:a"},
		},
		{
			outbox.KindNamespaceSet, "app", `{"namespace":"app","standard_id":"x-1","parent_namespace":null,"updated_at":"2025-01-02T03:04:05Z"}`,
			map[string]any{"namespace": "app", "standard_id": "x-1", "updated_at": appTime},
		},
		{outbox.KindNamespaceClear, "app", "", nil},
	} {
		id, err := appendEntry(t, pool, outbox.Entry{Namespace: "app", Kind: c.kind, Key: c.key, Payload: json.RawMessage(c.payload)})
		if err != nil {
			t.Errorf("%s: %v", c.kind, err)
			continue
		}
		if diff := cmp.Diff(c.want, payload(t, pool, id)); diff != "" {
			t.Errorf("%s: payload (-want +got):\n%s", c.kind, diff)
		}
	}
	if n := count(t, pool, `select count(distinct kind) from outbox`); n != 10 {
		t.Errorf("got %d kinds, want 10", n)
	}
}

func TestAppendTakesDependenciesAndEmbedding(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	add := func(namespace, key string, after ...outbox.EntryID) outbox.EntryID {
		t.Helper()
		id, err := appendEntry(t, pool, outbox.Entry{Namespace: namespace, Kind: outbox.KindDelete, Key: key, After: after})
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	one, two, three := add(here, "1"), add(here, "2"), add(there, "3")
	add(here, "4")
	own := add("app", "5")
	// Of one lane's entries the newest of the lane stands for several, because the largest need not be the last that is dispatched. The own lane needs none.
	add("app", "6", two, own, three, one)
	add("app", "7", one)
	add("app", "8", own)
	wantLog(t, pool, own, "delete app 6 < delete 3, delete 4", "delete app 7 < delete 1", "delete app 8")

	embedding := &outbox.Embedding{Model: "mini", Vector: []float32{0.5}}
	id, err := appendEntry(t, pool, outbox.Entry{
		Namespace: "app", Kind: outbox.KindStore, Key: "x-1", Payload: json.RawMessage(appMemory), Embedding: embedding,
	})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := pool.QueryRow(t.Context(), `select embedding from outbox where id = $1`, id).Scan(&got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"memory_id": "x-1", "model": "mini", "dim": 1.0, "vector": []any{0.5}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("embedding (-want +got):\n%s", diff)
	}
}

func TestAppendRefusals(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	consolidation := func(sources string) json.RawMessage {
		return raw(`{"memory":` + appMemory + `,"sources":` + sources + `}`)
	}
	vector := &outbox.Embedding{Model: "mini", Vector: []float32{0.5}}
	for name, c := range map[string]struct {
		entry outbox.Entry
		field string
	}{
		"kind":                       {outbox.Entry{Kind: "touch", Key: "x-1"}, "kind"},
		"namespace":                  {outbox.Entry{Namespace: "a b", Kind: outbox.KindDelete, Key: "x-1"}, "namespace"},
		"store's key":                {outbox.Entry{Kind: outbox.KindStore, Key: "y", Payload: raw(appMemory)}, "key"},
		"store's namespace":          {outbox.Entry{Namespace: "b", Kind: outbox.KindStore, Key: "x-1", Payload: raw(appMemory)}, "namespace"},
		"store without memory":       {outbox.Entry{Kind: outbox.KindStore, Key: "x-1"}, "memory"},
		"store's tier":               {outbox.Entry{Kind: outbox.KindStore, Key: "x-1", Payload: raw(strings.Replace(appMemory, "long", "x", 1))}, "tier"},
		"archive without memory":     {outbox.Entry{Kind: outbox.KindArchive, Key: "x-1"}, "memory"},
		"restore's key":              {outbox.Entry{Kind: outbox.KindRestore, Key: "y", Payload: raw(appMemory)}, "key"},
		"delete's key":               {outbox.Entry{Kind: outbox.KindDelete, Key: "a/b"}, "key"},
		"delete's payload":           {outbox.Entry{Kind: outbox.KindDelete, Key: "x-1", Payload: raw(`{"a":1}`)}, "payload"},
		"link without payload":       {outbox.Entry{Kind: outbox.KindLink, Key: "ab"}, "link"},
		"link's key":                 {outbox.Entry{Kind: outbox.KindLink, Key: "ba", Payload: raw(`{"source_id":"a","target_id":"b","relation":"related_to"}`)}, "key"},
		"consolidate's payload":      {outbox.Entry{Kind: outbox.KindConsolidate, Key: "x-1", Payload: raw(appMemory)}, "payload"},
		"consolidate's memory":       {outbox.Entry{Kind: outbox.KindConsolidate, Key: "x-1", Payload: raw(`{"memory":{},"sources":[]}`)}, "id"},
		"consolidate's sources":      {outbox.Entry{Kind: outbox.KindConsolidate, Key: "x-1", Payload: consolidation(`[]`)}, "sources"},
		"consolidate's source":       {outbox.Entry{Kind: outbox.KindConsolidate, Key: "x-1", Payload: consolidation(`[{"id":"a"}]`)}, "sources"},
		"consolidate into a source":  {outbox.Entry{Kind: outbox.KindConsolidate, Key: "x-1", Payload: consolidation(`[{"id":"x-1","namespace":"n","title":"t"}]`)}, "sources"},
		"pending's payload":          {outbox.Entry{Kind: outbox.KindPending, Key: "p", Payload: raw(`{"id":"p"}`)}, "action_type"},
		"pending's namespace":        {outbox.Entry{Namespace: "b", Kind: outbox.KindPending, Key: "p", Payload: raw(appAction)}, "namespace"},
		"decision's payload":         {outbox.Entry{Kind: outbox.KindDecision, Key: "p", Payload: raw(`{"id":"p","decider":"ai:a"}`)}, "approved"},
		"decision's key":             {outbox.Entry{Kind: outbox.KindDecision, Key: "q", Payload: raw(`{"id":"p","approved":true,"decider":"ai:a"}`)}, "key"},
		"standard":                   {outbox.Entry{Kind: outbox.KindNamespaceSet, Key: "app", Payload: raw(`{"namespace":"app"}`)}, "standard_id"},
		"standard's key":             {outbox.Entry{Kind: outbox.KindNamespaceSet, Key: "b", Payload: raw(`{"namespace":"app","standard_id":"x"}`)}, "key"},
		"standard of another":        {outbox.Entry{Kind: outbox.KindNamespaceSet, Key: "b", Payload: raw(`{"namespace":"b","standard_id":"x"}`)}, "namespace"},
		"clear's payload":            {outbox.Entry{Kind: outbox.KindNamespaceClear, Key: "app", Payload: raw(`{}`)}, "payload"},
		"clear's key":                {outbox.Entry{Kind: outbox.KindNamespaceClear, Key: "b"}, "key"},
		"after what is not there":    {outbox.Entry{Kind: outbox.KindDelete, Key: "x-1", After: []outbox.EntryID{1 << 40}}, "after"},
		"embedding of a delete":      {outbox.Entry{Kind: outbox.KindDelete, Key: "x-1", Embedding: vector}, "embedding"},
		"embedding without a vector": {outbox.Entry{Kind: outbox.KindStore, Key: "x-1", Payload: raw(appMemory), Embedding: &outbox.Embedding{Model: "m"}}, "embedding"},
	} {
		if c.entry.Namespace == "" {
			c.entry.Namespace = "app"
		}
		_, err := appendEntry(t, pool, c.entry)
		wantRefused(t, name, err, c.field)
	}
	if n := count(t, pool, `select count(*) from outbox`); n != 0 {
		t.Errorf("got %d entries of refused writes, want none", n)
	}
}
