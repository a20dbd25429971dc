package refpeer_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/refpeer"
)

// hung is a peer whose memory a has everything that can hang on one.
func hung(t *testing.T) *refpeer.Peer {
	t.Helper()
	peer := openPeer(t, refpeer.Config{EmbeddingDim: 2})
	storeAll(t, peer, "a", "b", "c")
	apply(t, peer, fields{
		"memories":       []any{json.RawMessage(memoryJSON(t, fields{"id": "a", "title": "a"}))},
		"links":          []any{linkOf("a", "related_to", "b"), linkOf("c", "supersedes", "a"), linkOf("b", "related_to", "c")},
		"namespace_meta": []any{standardOf("n", "a", nil), standardOf("m", "b", nil)},
		"embeddings":     []any{map[string]any{"memory_id": "a", "model": "m", "dim": 2, "vector": []float64{0, 1}}},
	})
	if s := state(t, peer); len(s.Links) != 3 || len(s.NamespaceMeta) != 2 || len(s.Embeddings) != 1 {
		t.Fatalf("got the state %+v, want 3 links, 2 standards and an embedding", s)
	}
	return peer
}

// TestCascade wants what hangs on a memory to go with it, and nothing else,
// and none of it to come back.
func TestCascade(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string]fields{
		"deletion": {"deletions": []string{"a"}},
		"archive":  {"archives": []string{"a"}},
		"approved deletion": {
			"pendings":          []any{pendingOf("p", fields{"action_type": "delete", "memory_id": "a"})},
			"pending_decisions": []any{decisionOf("p", true)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			peer := hung(t)
			check := func(when string) {
				t.Helper()
				s := state(t, peer)
				if len(s.Links) != 1 || s.Links[0].SourceID != "b" || s.Links[0].TargetID != "c" {
					t.Errorf("%s: got links %+v, want b to c alone", when, s.Links)
				}
				if len(s.NamespaceMeta) != 1 || s.NamespaceMeta[0].Namespace != "m" {
					t.Errorf("%s: got standards %+v, want that of m alone", when, s.NamespaceMeta)
				}
				if len(s.Embeddings) != 0 {
					t.Errorf("%s: got embeddings %+v, want none", when, s.Embeddings)
				}
			}
			apply(t, peer, gone)
			check("gone")
			if got := ids(rows(t, peer)); !cmp.Equal(got, []string{"b", "c"}) {
				t.Errorf("got rows %v, want b and c", got)
			}
			apply(t, peer, fields{"restores": []string{"a"}})
			storeAll(t, peer, "a")
			check("back")
		})
	}
}

// TestArchive covers moving to the archive, over an older row of the id.
func TestArchive(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	storeAll(t, peer, "a")
	wantCounts(t, peer, "archive", fields{"archives": []string{"a", "a", "never-was", "bad/id"}},
		map[string]int{"archived": 1, "noop": 2, "skipped": 1})
	store(t, peer, fields{"id": "a", "title": "a", "content": "later"})
	if got := ids(rows(t, peer)); !cmp.Equal(got, []string{"a"}) {
		t.Errorf("a store after an archive: got rows %v, want a live row again", got)
	}
	wantCounts(t, peer, "archive again", fields{"archives": []string{"a"}}, map[string]int{"archived": 1})
	archived := state(t, peer).Archived
	if len(archived) != 1 {
		t.Fatalf("got %d archived rows, want 1", len(archived))
	}
	var row map[string]any
	if err := json.Unmarshal(archived[0], &row); err != nil {
		t.Fatal(err)
	}
	if row["content"] != "later" || row["archive_reason"] != "sync_push" || row["updated_at"] != "2026-01-01T00:00:00+00:00" {
		t.Errorf("got %v, want the later row as it was, with the reason", row)
	}
	if at, err := time.Parse(time.RFC3339Nano, row["archived_at"].(string)); err != nil || time.Since(at) > time.Minute {
		t.Errorf("archived_at: got %v, want now", row["archived_at"])
	}
	if got := rows(t, peer); len(got) != 0 {
		t.Errorf("got rows %v, want none", got)
	}
}

// TestRestore covers what comes back and how, and what keeps its place.
func TestRestore(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	storeAll(t, peer, "a", "b", "c")
	apply(t, peer, fields{"archives": []string{"a", "b", "c"}})
	store(t, peer, fields{"id": "b", "title": "another title"}) // the id lives
	store(t, peer, fields{"id": "c2", "title": "c"})            // the title lives
	start := time.Now()
	wantCounts(t, peer, "restore", fields{"restores": []string{"a", "b", "c", "never-was", "bad/id"}},
		map[string]int{"restored": 1, "skipped": 3, "noop": 1})
	wantCounts(t, peer, "restore again", fields{"restores": []string{"a"}}, map[string]int{"noop": 1})

	live := map[string]string{}
	for _, row := range rows(t, peer) {
		live[row["id"].(string)] = row["title"].(string)
		if row["id"] != "a" {
			continue
		}
		stamped := row["updated_at"].(string)
		at, err := time.Parse("2006-01-02T15:04:05.999999999+00:00", stamped)
		if err != nil || !strings.HasSuffix(stamped, "+00:00") || at.Before(start.Add(-time.Second)) || at.After(time.Now()) {
			t.Errorf("updated_at: got %q (%v), want now in UTC, ending with +00:00", stamped, err)
		}
		if row["created_at"] != "2026-01-01T00:00:00+00:00" || row["content"] != "content" {
			t.Errorf("got %v, want the other fields as they were", row)
		}
	}
	if diff := cmp.Diff(map[string]string{"a": "a", "b": "another title", "c2": "c"}, live); diff != "" {
		t.Errorf("live rows (-want +got):\n%s", diff)
	}
	if got := len(state(t, peer).Archived); got != 2 {
		t.Errorf("got %d archived rows, want b and c to stay", got)
	}

	// The stamp beats an older update of the writer.
	store(t, peer, fields{"id": "a", "title": "a", "content": "older", "updated_at": "2026-01-02T00:00:00+00:00"})
	for _, row := range rows(t, peer) {
		if row["id"] == "a" && row["content"] != "content" {
			t.Errorf("got the content %v, want the restored one to win", row["content"])
		}
	}
}
