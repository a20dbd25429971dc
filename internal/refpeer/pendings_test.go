package refpeer_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/refpeer"
)

// TestPendings wants every column kept, and overwritten by a later push: also
// the status of what was decided.
func TestPendings(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	whole := pendingOf("p", fields{
		"memory_id": "m", "payload": map[string]any{"k": []any{1.0, nil}}, "decided_by": "ai:z", "decided_at": "soon",
		"approvals": []any{map[string]any{"agent_id": "ai:y", "approved_at": "2026-01-01T00:00:00+00:00"}},
	})
	wantCounts(t, peer, "pending", fields{"pendings": []any{whole}}, map[string]int{"pendings_applied": 1})
	if diff := cmp.Diff([]any{whole}, get(t, peer, "/_ref/state").json(t)["pendings"]); diff != "" {
		t.Errorf("pendings (-want +got):\n%s", diff)
	}
	apply(t, peer, fields{"pending_decisions": []any{decisionOf("p", false)}})
	plain := pendingOf("p", fields{"payload": nil})
	plain["payload"] = nil
	apply(t, peer, fields{"pendings": []any{plain}})
	plain["memory_id"], plain["approvals"] = nil, []any{}
	if diff := cmp.Diff([]any{plain}, get(t, peer, "/_ref/state").json(t)["pendings"]); diff != "" {
		t.Errorf("overwritten (-want +got):\n%s", diff)
	}
	wantCounts(t, peer, "bad ids", fields{"pendings": []any{
		pendingOf("bad/id", nil), pendingOf("q", fields{"namespace": "/"}),
	}}, map[string]int{"skipped": 2})
}

// TestDecisions wants only what is pending to be decided, and an approved
// action to be done.
func TestDecisions(t *testing.T) {
	t.Parallel()
	memory := func(changes fields) json.RawMessage { return json.RawMessage(memoryJSON(t, changes)) }
	for _, tt := range []struct {
		name     string
		action   fields
		approved bool
		status   string
		log      string
		rows     []string
	}{
		{"rejected", fields{"action_type": "delete", "memory_id": "m"}, false, "rejected", "decision p decided rejected", []string{"m"}},
		{
			"store",
			fields{"action_type": "store", "payload": memory(fields{"id": "n", "title": "n"})},
			true, "approved",
			"decision p n ns decided approved, store inserted",
			[]string{"m", "n"},
		},
		{
			"store that changes the title",
			fields{"action_type": "store", "payload": memory(fields{"id": "m", "title": "n"})},
			true,
			"approved", "decision p m ns decided approved, store skipped",
			[]string{"m"},
		},
		{
			"store out of bounds",
			fields{"action_type": "store", "payload": memory(fields{"id": "n", "priority": 99})},
			true, "approved",
			"decision p decided approved, but the payload is no memory",
			[]string{"m"},
		},
		{
			"store of something else",
			fields{"action_type": "store", "payload": map[string]any{"title": "n"}},
			true, "approved",
			"decision p decided approved, but the payload is no memory",
			[]string{"m"},
		},
		{
			"delete",
			fields{"action_type": "delete", "memory_id": "m"},
			true, "approved", "decision p m decided approved, delete deleted",
			[]string{},
		},
		{
			"delete of nothing",
			fields{"action_type": "delete", "memory_id": "x"},
			true, "approved",
			"decision p x decided approved, delete noop",
			[]string{"m"},
		},
		{
			"delete without an id",
			fields{"action_type": "delete"},
			true, "approved",
			"decision p decided approved, but there is no memory to delete",
			[]string{"m"},
		},
		{
			"another action",
			fields{"action_type": "promote", "memory_id": "m"},
			true, "approved", "decision p decided approved",
			[]string{"m"},
		},
		{
			"decided before",
			fields{"action_type": "delete", "memory_id": "m", "status": "rejected"},
			true, "rejected",
			"decision p noop decided already",
			[]string{"m"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			peer := openPeer(t, refpeer.Config{})
			storeAll(t, peer, "m")
			apply(t, peer, fields{"pendings": []any{pendingOf("p", tt.action)}})
			counts := apply(t, peer, fields{"pending_decisions": []any{decisionOf("p", tt.approved)}})
			if got := last(t, peer); got != tt.log {
				t.Errorf("log: got %q, want %q", got, tt.log)
			}
			p := state(t, peer).Pendings[0]
			if p.Status != tt.status {
				t.Errorf("status: got %s, want %s", p.Status, tt.status)
			}
			if got := ids(rows(t, peer)); !cmp.Equal(got, tt.rows) {
				t.Errorf("got rows %v, want %v", got, tt.rows)
			}
			if counts["noop"] == 1 {
				if p.DecidedBy != nil {
					t.Errorf("got decided by %s, want it left alone", *p.DecidedBy)
				}
				return
			}
			if counts["pending_decisions_applied"] != 1 || p.DecidedBy == nil || *p.DecidedBy != "ai:boss" {
				t.Errorf("got %v and decided by %v, want it applied by ai:boss", counts, p.DecidedBy)
			}
			if at, err := time.Parse("2006-01-02T15:04:05.999999999+00:00", *p.DecidedAt); err != nil || time.Since(at) > time.Minute {
				t.Errorf("decided_at: got %s, want now", *p.DecidedAt)
			}
			wantCounts(t, peer, "again", fields{"pending_decisions": []any{decisionOf("p", !tt.approved), decisionOf("never-was", true)}},
				map[string]int{"noop": 2})
		})
	}
}
