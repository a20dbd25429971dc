package integration

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"quorumbox/outbox"
)

// The checker of all lists finds what is wrong: it is shown a fleet in order, in which then one list after the other is falsified.
func TestStateChecker(t *testing.T) {
	t.Parallel()
	f := newFleet(t, setup{})
	f.worker(t, "")
	f.store(t, memories("row", 4)...)
	err := pgx.BeginFunc(t.Context(), f.pool, func(tx pgx.Tx) error {
		if _, err := outbox.Archive(t.Context(), tx, "row-3", ""); err != nil {
			return err
		}
		if _, err := outbox.Link(t.Context(), tx, outbox.MemoryLink{SourceID: "row-0", TargetID: "row-1", Relation: "supersedes"}); err != nil {
			return err
		}
		action := outbox.PendingAction{ID: "act", ActionType: "notify", Namespace: "team/0", Payload: []byte(`{"n":1}`), RequestedBy: "ai:writer"}
		if _, err := outbox.Pending(t.Context(), tx, action); err != nil {
			return err
		}
		_, err := outbox.NamespaceSet(t.Context(), tx, outbox.NamespaceStandard{Namespace: "team/0", StandardID: "row-2"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	f.convergeAll(t, insertsOnly)

	for _, test := range []struct{ want, falsify string }{
		{"peer-1, archived: row-3 (-peer +writer)", `update archived_memories set content = 'other'`},
		{"peer-2, archived: row-3 should not be there", `delete from archived_memories`},
		{"peer-3, links: row-0 row-1 supersedes (-peer +writer)", `update memory_links set valid_from = '2026-06-15T00:00:00Z'`},
		{"peer-1, links: row-0 row-1 supersedes should not be there", `delete from memory_links`},
		{"peer-1, pendings: act (-peer +writer)", `update pending_actions set payload = '{"n":2}'`},
		{`string("approved")`, `update pending_actions set status = 'approved'`},
		{"peer-1, pendings: more is missing", `insert into pending_actions select 'more', action_type, memory_id, namespace, payload, requested_by, requested_at, status
			from pending_actions`},
		{"peer-3, namespace_meta: team/0 (-peer +writer)", `update namespace_meta set standard_id = 'row-1'`},
		{"peer-1, namespace_meta: team/0 should not be there", `delete from namespace_meta`},
		{"peer-1, memories: row-1 (-peer +writer)", `update memories set priority = 9 where id = 'row-1'`},
		{"refuses entry", `insert into refusals (peer, entry, lane, class, next_at) select 'peer-1', id, lane, 'skipped', 'infinity' from outbox limit 1`},
	} {
		look := func() string {
			return strings.Join(append(f.stateDifferences(t.Context(), insertsOnly), f.refused(t.Context())...), "\n")
		}
		if strings.Contains(look(), test.want) {
			t.Errorf("found before anything was falsified: %s", test.want)
		}
		if _, err := f.pool.Exec(t.Context(), test.falsify); err != nil {
			t.Fatal(err)
		}
		if got := look(); !strings.Contains(got, test.want) {
			t.Errorf("got %q, want it to say %q", got, test.want)
		}
	}
}

// What a peer skipped is made good by the same item later, or void by the end of what it was about, and by nothing else.
func TestSkippedItemsAreSettled(t *testing.T) {
	t.Parallel()
	link := applied{Push: 1, Op: "link", ID: "a", Target: "b", Relation: "supersedes", Result: "skipped"}
	store := applied{Push: 1, Op: "store", ID: "a", UpdatedAt: "2026-06-15", Result: "skipped"}
	standard := applied{Push: 1, Op: "namespace_set", ID: "a", Namespace: "n", Result: "skipped"}
	for _, test := range []struct {
		name    string
		skipped applied
		later   applied
		want    bool
	}{
		{"link again", link, applied{Push: 2, Op: "link", ID: "a", Target: "b", Relation: "supersedes", Result: "linked"}, true},
		{"other link", link, applied{Push: 2, Op: "link", ID: "a", Target: "b", Relation: "contradicts", Result: "linked"}, false},
		{"skipped again", link, applied{Push: 2, Op: "link", ID: "a", Target: "b", Relation: "supersedes", Result: "skipped"}, false},
		{"end deleted", link, applied{Push: 2, Op: "delete", ID: "b", Result: "deleted"}, true},
		{"other deleted", link, applied{Push: 2, Op: "delete", ID: "c", Result: "deleted"}, false},
		{"older store", store, applied{Push: 2, Op: "store", ID: "a", UpdatedAt: "2026-06-14", Result: "inserted"}, false},
		{"standard cleared", standard, applied{Push: 2, Op: "namespace_clear", Namespace: "n", Result: "cleared"}, true},
	} {
		if got := test.later.settles(test.skipped); got != test.want {
			t.Errorf("%s: got %t, want %t", test.name, got, test.want)
		}
	}
}
