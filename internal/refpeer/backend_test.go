package refpeer_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/refpeer"
)

// TestPostgresBackend wants three lists applied, and the others counted and
// left alone, in the answer of that backend.
func TestPostgresBackend(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{Backend: refpeer.BackendPostgres})
	storeAll(t, peer, "a", "b", "c")
	a := send(t, peer, bodyOf(t, fields{
		"memories": []any{json.RawMessage(memoryJSON(t, fields{"id": "d", "title": "d"}))}, "deletions": []string{"c", "x"},
		"links":    []any{linkOf("a", "related_to", "b"), linkOf("a", "related_to", "c")},
		"archives": []string{"a"}, "restores": []string{"x"}, "pendings": []any{pendingOf("p", nil)},
		"pending_decisions": []any{decisionOf("p", true)}, "namespace_meta": []any{standardOf("n", "a", nil)},
		"namespace_meta_clears": []string{"n", "m"},
	}))
	got := a.json(t)
	for _, name := range []string{"receiver_agent_id", "note"} {
		if got[name] == nil || got[name] == "" {
			t.Errorf("got no %s, want one", name)
		}
		delete(got, name)
	}
	want := map[string]any{
		"applied": 1.0, "deleted": 1.0, "links_applied": 1.0, "noop": 1.0, "skipped": 1.0, "quota_refused": 0.0,
		"unsupported_on_postgres": 7.0, "dry_run": false, "storage_backend": "postgres",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	s := state(t, peer)
	if len(s.Links) != 1 || len(s.Archived)+len(s.Pendings)+len(s.NamespaceMeta) != 0 {
		t.Errorf("got %+v, want one link and nothing else", s)
	}
	if got := ids(rows(t, peer)); !cmp.Equal(got, []string{"a", "b", "d"}) {
		t.Errorf("got rows %v, want a, b and d", got)
	}
	if got := last(t, peer); got != "namespace_clear m unsupported" {
		t.Errorf("log: got %q, want what was left alone in it", got)
	}
	if got := apply(t, peer, fields{}); len(got) != 0 {
		t.Errorf("nothing: got %v, want unsupported_on_postgres 0", got)
	}
}
