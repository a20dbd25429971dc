package refpeer_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/refpeer"
)

// TestMergeFields goes through the field rules of a merge, one by one
// (protocol, insert_if_newer): want is the field afterwards, nil for absent.
func TestMergeFields(t *testing.T) {
	t.Parallel()
	const older, stored, newer = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00", "2026-01-03T00:00:00+00:00"
	signals := func(days float64) map[string]any { return map[string]any{"source_age_days": days} }
	for _, tt := range []struct {
		name    string
		field   string
		before  any
		arrives any
		at      string // updated_at of the arriving row
		want    any
		with    fields // set in both rows
	}{
		{"content, newer", "content", "a", "b", newer, "b", nil},
		{"content, older", "content", "a", "b", older, "a", nil},
		{"content, same time", "content", "a", "b", stored, "a", nil},
		{"tags, newer", "tags", []any{"a"}, []any{"b"}, newer, []any{"b"}, nil},
		{"tags, older", "tags", []any{"a"}, []any{"b"}, older, []any{"a"}, nil},
		{"source, newer", "source", "user", "api", newer, "api", nil},
		{"source, older", "source", "user", "api", older, "user", nil},
		{"citations, newer", "citations", nil, []any{cite("b")}, newer, []any{cite("b")}, nil},
		{"citations, older", "citations", []any{cite("a")}, []any{cite("b")}, older, []any{cite("a")}, nil},
		{"confidence source, newer", "confidence_source", nil, "decayed", newer, "decayed", nil},
		{"confidence source, older", "confidence_source", nil, "decayed", older, "caller_provided", nil},
		{"confidence signals, newer", "confidence_signals", signals(1), signals(2), newer, signals(2), nil},
		{"confidence signals, older", "confidence_signals", signals(1), signals(2), older, signals(1), nil},
		{"priority rises", "priority", 3, 7, older, 7.0, nil},
		{"priority never falls", "priority", 7, 3, newer, 7.0, nil},
		{"confidence rises", "confidence", 0.25, 0.75, older, 0.75, nil},
		{"confidence never falls", "confidence", 0.75, 0.25, newer, 0.75, nil},
		{"access count rises", "access_count", 1, 2, older, 2.0, nil},
		{"access count never falls", "access_count", 2, 1, newer, 2.0, nil},
		{"reflection depth rises", "reflection_depth", 1, 2, older, 2.0, nil},
		{"reflection depth never falls", "reflection_depth", 2, 1, newer, 2.0, nil},
		{"tier rises", "tier", "short", "mid", older, "mid", nil},
		{"tier never falls", "tier", "long", "short", newer, "long", nil},
		{"updated_at, newer", "updated_at", stored, newer, newer, newer, nil},
		{"updated_at, older", "updated_at", stored, older, older, stored, nil},
		{
			"metadata, newer keeps the author", "metadata",
			map[string]any{"agent_id": "ai:a", "x": 1.0},
			map[string]any{"agent_id": "ai:b", "y": 2.0},
			newer,
			map[string]any{"agent_id": "ai:a", "y": 2.0},
			nil,
		},
		{
			"metadata, newer without an author", "metadata",
			map[string]any{"agent_id": "ai:a"},
			map[string]any{"y": 2.0},
			newer,
			map[string]any{"agent_id": "ai:a", "y": 2.0},
			nil,
		},
		{
			"metadata, newer brings the first author", "metadata",
			map[string]any{"x": 1.0},
			map[string]any{"agent_id": "ai:b"},
			newer,
			map[string]any{"agent_id": "ai:b"},
			nil,
		},
		{
			"metadata, absent in the newer row", "metadata",
			map[string]any{"agent_id": "ai:a", "x": 1.0},
			nil, newer,
			map[string]any{"agent_id": "ai:a"},
			nil,
		},
		{
			"metadata, older", "metadata",
			map[string]any{"x": 1.0},
			map[string]any{"agent_id": "ai:b"},
			older,
			map[string]any{"x": 1.0},
			nil,
		},
		{"kind, last arrival even if older", "memory_kind", "claim", "event", older, "event", nil},
		{"kind, reflection stays", "memory_kind", "reflection", "event", newer, "reflection", nil},
		{"kind, persona stays", "memory_kind", "persona", "event", newer, "persona", nil},
		{"kind, turns into reflection", "memory_kind", "event", "reflection", older, "reflection", nil},
		{"expiry, last arrival even if older", "expires_at", newer, older, older, older, fields{"tier": "mid"}},
		{"expiry, absent keeps", "expires_at", newer, nil, newer, newer, fields{"tier": "mid"}},
		{"expiry, long has none", "expires_at", newer, newer, newer, nil, nil},
		{"expiry, long has none, the very same row", "expires_at", newer, newer, stored, nil, nil},
		{"entity, first stays", "entity_id", "a", "b", newer, "a", nil},
		{"entity, first arrives", "entity_id", nil, "b", older, "b", nil},
		{"persona version, first stays", "persona_version", 1, 2, newer, 1.0, nil},
		{"persona version, first arrives", "persona_version", nil, 2, older, 2.0, nil},
		{"source uri, arriving", "source_uri", "uri:a", "uri:b", older, "uri:b", nil},
		{"source uri, absent keeps", "source_uri", "uri:a", nil, newer, "uri:a", nil},
		{"source span, arriving", "source_span", span(1), span(2), older, span(2), nil},
		{"source span, absent keeps", "source_span", span(1), nil, newer, span(1), nil},
		{"version stays", "version", 1, 2, newer, 1.0, nil},
		{"created_at stays", "created_at", older, newer, newer, older, nil},
		{"last_accessed_at stays", "last_accessed_at", nil, newer, newer, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			peer := openPeer(t, refpeer.Config{})
			before, arrives := fields{"updated_at": stored}, fields{"updated_at": tt.at}
			for name, value := range tt.with {
				before[name], arrives[name] = value, value
			}
			before[tt.field], arrives[tt.field] = tt.before, tt.arrives
			store(t, peer, before)
			if got := store(t, peer, arrives); got["applied"] != 1.0 || got["skipped"] != 0.0 {
				t.Errorf("got %v, want applied 1: it counts even if the stored row wins", got)
			}
			got := rows(t, peer)
			if len(got) != 1 {
				t.Fatalf("got %d rows, want 1", len(got))
			}
			value := got[0][tt.field]
			if metadata, ok := value.(map[string]any); ok && tt.field == "metadata" {
				delete(metadata, "reflection_origin")
			}
			if diff := cmp.Diff(tt.want, value); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.field, diff)
			}
		})
	}
}

func cite(uri string) map[string]any {
	return map[string]any{"uri": uri, "accessed_at": "2026-01-01T00:00:00+00:00"}
}

func span(start int) map[string]any {
	return map[string]any{"start": float64(start), "end": 9.0}
}

// TestConflicts covers which row a memory meets (protocol, table of insert_if_newer).
func TestConflicts(t *testing.T) {
	t.Parallel()
	const t1, t2 = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
	type row struct{ ID, Namespace, Title, Content string }
	rowA := fields{"id": "a", "title": "A", "content": "old a", "updated_at": t1}
	rowB := fields{"id": "b", "title": "B", "content": "old b", "updated_at": t1}
	oldA, oldB := row{"a", "ns", "A", "old a"}, row{"b", "ns", "B", "old b"}
	for _, tt := range []struct {
		name    string
		arrives fields
		want    []row
		result  refpeer.Result
	}{
		{
			"a new key",
			fields{"id": "c", "title": "C", "content": "new", "updated_at": t1},
			[]row{oldA, oldB, {"c", "ns", "C", "new"}},
			refpeer.ResultInserted,
		},
		{
			"the title in another namespace",
			fields{"id": "c", "title": "A", "namespace": "n2", "content": "new", "updated_at": t1},
			[]row{oldA, oldB, {"c", "n2", "A", "new"}},
			refpeer.ResultInserted,
		},
		{
			"the same row, newer",
			fields{"id": "a", "title": "A", "content": "new", "updated_at": t2},
			[]row{{"a", "ns", "A", "new"}, oldB},
			refpeer.ResultUpdated,
		},
		{
			"the same row, same time",
			fields{"id": "a", "title": "A", "content": "new", "updated_at": t1},
			[]row{oldA, oldB},
			refpeer.ResultLost,
		},
		{
			"the same row, time with another offset is compared as text",
			fields{"id": "a", "title": "A", "content": "new", "updated_at": "2026-01-01T00:00:00Z"},
			[]row{{"a", "ns", "A", "new"}, oldB},
			refpeer.ResultUpdated,
		},
		{
			"a rename",
			fields{"id": "a", "title": "C", "content": "new", "updated_at": t2},
			[]row{oldA, oldB},
			refpeer.ResultSkipped,
		},
		{
			"a move",
			fields{"id": "a", "title": "A", "namespace": "n2", "content": "new", "updated_at": t2},
			[]row{oldA, oldB},
			refpeer.ResultSkipped,
		},
		{
			"another id, newer",
			fields{"id": "c", "title": "A", "content": "new", "updated_at": t2},
			[]row{{"a", "ns", "A", "new"}, oldB},
			refpeer.ResultMerged,
		},
		{
			"another id, same time, larger id wins",
			fields{"id": "c", "title": "A", "content": "new", "updated_at": t1},
			[]row{{"a", "ns", "A", "new"}, oldB},
			refpeer.ResultMerged,
		},
		{
			"another id, same time, smaller id loses",
			fields{"id": "0", "title": "A", "content": "new", "updated_at": t1},
			[]row{oldA, oldB},
			refpeer.ResultMerged,
		},
		{
			"the id of one row with the title of another",
			fields{"id": "a", "title": "B", "content": "new", "updated_at": t2},
			[]row{oldA, {"b", "ns", "B", "new"}},
			refpeer.ResultMerged,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			peer := openPeer(t, refpeer.Config{})
			store(t, peer, rowA)
			store(t, peer, rowB)
			answer := store(t, peer, tt.arrives)
			wantApplied, wantSkipped := 1.0, 0.0
			if tt.result == refpeer.ResultSkipped {
				wantApplied, wantSkipped = 0, 1
			}
			if answer["applied"] != wantApplied || answer["skipped"] != wantSkipped {
				t.Errorf("got %v, want applied %v and skipped %v", answer, wantApplied, wantSkipped)
			}
			got := []row{}
			for _, m := range rows(t, peer) {
				got = append(got, row{m["id"].(string), m["namespace"].(string), m["title"].(string), m["content"].(string)})
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			log := entries(t, peer)
			if got := log[len(log)-1].Result; got != tt.result {
				t.Errorf("log: got %s, want %s", got, tt.result)
			}
		})
	}
}

func TestReflectionOrigin(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	store(t, peer, fields{"memory_kind": "reflection"})
	metadata := rows(t, peer)[0]["metadata"].(map[string]any)
	if metadata["reflection_origin"] != sender || metadata["scope"] != "collective" {
		t.Errorf("got metadata %v, want reflection_origin %s beside the rest", metadata, sender)
	}
}
