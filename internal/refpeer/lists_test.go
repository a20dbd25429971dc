package refpeer_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/refpeer"
)

// bodyOf is a push with the given fields beside the sender and, unless given,
// no memories.
func bodyOf(tb testing.TB, given fields) string {
	tb.Helper()
	body := map[string]any{"sender_agent_id": sender, "memories": []any{}}
	maps.Copy(body, given)
	b, err := json.Marshal(body)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// apply pushes the given fields, wants 200, and returns the counters of the
// answer that are not 0.
func apply(tb testing.TB, peer *refpeer.Peer, given fields) map[string]int {
	tb.Helper()
	a := send(tb, peer, bodyOf(tb, given))
	if a.status != http.StatusOK {
		tb.Fatalf("push %v: got %d %s, want 200", given, a.status, a.body)
	}
	counts := map[string]int{}
	for name, value := range a.json(tb) {
		if n, ok := value.(float64); ok && n != 0 {
			counts[name] = int(n)
		}
	}
	return counts
}

// wantCounts pushes the given fields and wants just these counters.
func wantCounts(tb testing.TB, peer *refpeer.Peer, what string, given fields, want map[string]int) {
	tb.Helper()
	if diff := cmp.Diff(want, apply(tb, peer, given)); diff != "" {
		tb.Errorf("%s: counters (-want +got):\n%s", what, diff)
	}
}

// storeAll stores a memory for each id, with the id as its title.
func storeAll(tb testing.TB, peer *refpeer.Peer, ids ...string) {
	tb.Helper()
	for _, id := range ids {
		store(tb, peer, fields{"id": id, "title": id})
	}
}

func state(tb testing.TB, peer *refpeer.Peer) refpeer.State {
	tb.Helper()
	s, err := peer.State(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// last is the last entry of the log in short: op, keys, result, reason.
func last(tb testing.TB, peer *refpeer.Peer) string {
	tb.Helper()
	log := entries(tb, peer)
	if len(log) == 0 {
		tb.Fatal("the log is empty")
	}
	return short(log[len(log)-1])
}

func short(e refpeer.LogEntry) string {
	parts := []string{string(e.Op)}
	for _, part := range []string{e.ID, e.Target, e.Relation, e.Namespace, string(e.Result), e.Reason} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, " ")
}

func linkOf(source, relation, target string) map[string]any {
	return map[string]any{"source_id": source, "target_id": target, "relation": relation, "created_at": "2026-01-01T00:00:00+00:00"}
}

func pendingOf(id string, changes fields) map[string]any {
	p := map[string]any{
		"id": id, "action_type": "review", "namespace": "ns", "payload": map[string]any{}, "requested_by": "ai:x",
		"requested_at": "2026-01-01T00:00:00+00:00", "status": "pending",
	}
	maps.Copy(p, changes)
	for name, value := range changes {
		if value == nil {
			delete(p, name)
		}
	}
	return p
}

func decisionOf(id string, approved bool) map[string]any {
	return map[string]any{"id": id, "approved": approved, "decider": "ai:boss"}
}

func standardOf(namespace, id string, parent any) map[string]any {
	return map[string]any{"namespace": namespace, "standard_id": id, "parent_namespace": parent, "updated_at": "2026-01-01T00:00:00+00:00"}
}

// TestListRefused covers what refuses a whole push with 400.
func TestListRefused(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{EmbeddingDim: 2})
	storeAll(t, peer, "a", "b")
	before := len(entries(t, peer))
	without := func(m map[string]any, field string) map[string]any {
		delete(m, field)
		return m
	}
	with := func(m map[string]any, field string, value any) map[string]any {
		m[field] = value
		return m
	}
	good := map[string]func() map[string]any{
		"links":             func() map[string]any { return linkOf("a", "related_to", "b") },
		"pendings":          func() map[string]any { return pendingOf("p", nil) },
		"pending_decisions": func() map[string]any { return decisionOf("p", true) },
		"namespace_meta":    func() map[string]any { return standardOf("n", "a", nil) },
		"embeddings": func() map[string]any {
			return map[string]any{"memory_id": "a", "model": "m", "dim": 2, "vector": []float64{1, 0}}
		},
	}
	bodies := map[string]string{}
	for list, fields := range map[string][]string{
		"links":             {"source_id", "target_id", "relation", "created_at"},
		"pendings":          {"id", "action_type", "namespace", "payload", "requested_by", "requested_at", "status"},
		"pending_decisions": {"id", "approved", "decider"},
		"namespace_meta":    {"namespace", "standard_id"},
		"embeddings":        {"memory_id", "model", "dim", "vector"},
	} {
		for _, field := range fields {
			bodies[list+" without "+field] = bodyOf(t, map[string]any{list: []any{without(good[list](), field)}})
		}
		bodies[list+" null"] = bodyOf(t, map[string]any{list: nil})
		bodies[list+" of null"] = bodyOf(t, map[string]any{list: []any{nil}})
		bodies[list+" over the cap"] = bodyOf(t, map[string]any{list: repeat(good[list](), 1001)})
		first := fields[0]
		bodies[list+" with a field twice"] = strings.Replace(bodyOf(t, map[string]any{list: []any{good[list]()}}),
			`"`+first+`"`, fmt.Sprintf(`%q:"x",%q`, first, first), 1)
	}
	for _, list := range []string{"archives", "restores", "namespace_meta_clears"} {
		bodies[list+" null"] = bodyOf(t, map[string]any{list: nil})
		bodies[list+" of numbers"] = bodyOf(t, map[string]any{list: []any{1}})
		bodies[list+" over the cap"] = bodyOf(t, map[string]any{list: repeat("x", 1001)})
	}
	link, pending := good["links"], good["pendings"]
	bodies["unknown relation"] = bodyOf(t, fields{"links": []any{with(link(), "relation", "near")}})
	bodies["signature as text"] = bodyOf(t, fields{"links": []any{with(link(), "signature", "AAAA")}})
	bodies["signature out of range"] = bodyOf(t, fields{"links": []any{with(link(), "signature", []int{256})}})
	bodies["approvals null"] = bodyOf(t, fields{"pendings": []any{with(pending(), "approvals", nil)}})
	bodies["approval without its time"] = bodyOf(t, fields{"pendings": []any{
		with(pending(), "approvals", []any{map[string]any{"agent_id": "x"}}),
	}})
	bodies["approved as text"] = bodyOf(t, fields{"pending_decisions": []any{with(good["pending_decisions"](), "approved", "yes")}})
	bodies["vector of text"] = bodyOf(t, fields{"embeddings": []any{with(good["embeddings"](), "vector", []string{"1"})}})
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			if a := send(t, peer, body); a.status != http.StatusBadRequest {
				t.Errorf("got %d %s, want 400", a.status, a.body)
			}
		})
	}
	if got := len(entries(t, peer)); got != before {
		t.Errorf("got %d log entries, want the %d from before: refused pushes change nothing", got, before)
	}
}

// TestOrderOfLists wants the lists applied in the order of the protocol,
// whatever the order of the body, and every kind in the log.
func TestOrderOfLists(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{EmbeddingDim: 2})
	storeAll(t, peer, "old", "parked", "gone")
	apply(t, peer, fields{"archives": []string{"parked"}})
	before := len(entries(t, peer))
	memories := []json.RawMessage{
		json.RawMessage(memoryJSON(t, fields{"id": "a", "title": "a"})), json.RawMessage(memoryJSON(t, fields{"id": "b", "title": "b"})),
	}
	wantCounts(t, peer, "every list", fields{
		"namespace_meta_clears": []string{"x"},
		"namespace_meta":        []any{standardOf("x", "a", nil), standardOf("y", "b", nil)},
		"pending_decisions":     []any{decisionOf("p", false)},
		"pendings":              []any{pendingOf("p", nil)},
		"links":                 []any{linkOf("a", "related_to", "parked")},
		"restores":              []string{"parked"},
		"archives":              []string{"old"},
		"deletions":             []string{"gone"},
		"embeddings":            []any{map[string]any{"memory_id": "a", "model": "m", "dim": 2, "vector": []float64{1, 0}}},
		"memories":              memories,
	}, map[string]int{
		"applied": 2, "deleted": 1, "archived": 1, "restored": 1, "links_applied": 1, "pendings_applied": 1,
		"pending_decisions_applied": 1, "namespace_meta_applied": 2, "namespace_meta_cleared": 1,
	})
	var got []string
	for _, e := range entries(t, peer)[before:] {
		got = append(got, short(e))
	}
	want := []string{
		"store a ns inserted", "store b ns inserted", "embedding a embedded", "delete gone deleted", "archive old archived",
		"restore parked ns restored", "link a parked related_to linked", "pending p ns parked", "decision p decided rejected",
		"namespace_set a x set", "namespace_set b y set", "namespace_clear x cleared",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if got := peer.Counters(); got.Items != int64(before+len(want)) {
		t.Errorf("items: got %d, want %d", got.Items, before+len(want))
	}
}

// TestQuotaEndsPush wants a quota that a memory meets to leave all later lists
// alone.
func TestQuotaEndsPush(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{QuotaPerDay: 2})
	storeAll(t, peer, "a", "b")
	body := bodyOf(t, fields{
		"memories":  []any{json.RawMessage(memoryJSON(t, fields{"id": "c", "title": "c"}))},
		"deletions": []string{"a"}, "archives": []string{"b"}, "links": []any{linkOf("a", "related_to", "b")},
		"pendings": []any{pendingOf("p", nil)}, "namespace_meta": []any{standardOf("n", "a", nil)},
	})
	if a := send(t, peer, body); a.status != http.StatusTooManyRequests {
		t.Fatalf("got %d %s, want 429", a.status, a.body)
	}
	empty := refpeer.State{
		Archived: []json.RawMessage{}, Links: []refpeer.Link{}, Pendings: []refpeer.Pending{},
		NamespaceMeta: []refpeer.NamespaceMeta{}, Embeddings: []refpeer.Embedding{},
	}
	if diff := cmp.Diff(empty, state(t, peer)); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	if got := ids(rows(t, peer)); !cmp.Equal(got, []string{"a", "b"}) {
		t.Errorf("got rows %v, want a and b", got)
	}
}

// TestDryRunOfLists wants a dry run to write nothing, whatever the list.
func TestDryRunOfLists(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{EmbeddingDim: 2})
	storeAll(t, peer, "a", "b")
	apply(t, peer, fields{"archives": []string{"b"}})
	before, log := state(t, peer), len(entries(t, peer))
	wantCounts(t, peer, "dry run", fields{
		"dry_run":  true,
		"archives": []string{"a"}, "restores": []string{"b"}, "links": []any{linkOf("a", "related_to", "b")},
		"pendings": []any{pendingOf("p", nil)}, "pending_decisions": []any{decisionOf("p", true)},
		"namespace_meta": []any{standardOf("n", "a", nil)}, "namespace_meta_clears": []string{"n"},
		"embeddings": []any{map[string]any{"memory_id": "a", "model": "m", "dim": 2, "vector": []float64{1, 0}}},
	}, map[string]int{"noop": 7})
	if diff := cmp.Diff(before, state(t, peer)); diff != "" {
		t.Errorf("state changed (-before +after):\n%s", diff)
	}
	if got := len(entries(t, peer)); got != log {
		t.Errorf("got %d log entries, want %d", got, log)
	}
}

// TestMaxCollection wants the cap to be what was set, for every list.
func TestMaxCollection(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{MaxCollection: 2})
	storeAll(t, peer, "a", "b")
	for list, element := range map[string]any{
		"memories": json.RawMessage(memoryJSON(t, nil)), "deletions": "x", "archives": "x", "restores": "x",
		"links": linkOf("a", "related_to", "b"), "pendings": pendingOf("p", nil), "pending_decisions": decisionOf("p", true),
		"namespace_meta": standardOf("n", "a", nil), "namespace_meta_clears": "n", "embeddings": embeddingOf("a", 1, 1),
	} {
		apply(t, peer, fields{list: repeat(element, 2)})
		a := send(t, peer, bodyOf(t, fields{list: repeat(element, 3)}))
		if a.status != http.StatusBadRequest || !strings.Contains(string(a.body), list+" has more than 2 elements") {
			t.Errorf("%s: got %d %s, want 400 that names it", list, a.status, a.body)
		}
	}
}

// TestQuotaOfBytes wants memories counted by their bytes as sent.
func TestQuotaOfBytes(t *testing.T) {
	t.Parallel()
	memory := memoryJSON(t, nil)
	peer := openPeer(t, refpeer.Config{QuotaBytesPerDay: 2*len(memory) + 1})
	for range 2 {
		if a := send(t, peer, pushBody(t, []string{memory})); a.status != http.StatusOK {
			t.Fatalf("got %d %s, want 200", a.status, a.body)
		}
	}
	a := send(t, peer, pushBody(t, []string{memory}))
	got := a.json(t)
	if a.status != http.StatusTooManyRequests || got["limit"] != "storage_bytes_per_day" || got["current"] != float64(2*len(memory)) ||
		a.header.Get("X-Quota-Limit") != "storage_bytes_per_day" {
		t.Errorf("got %d %s, want 429 of the bytes", a.status, a.body)
	}
	other := memoryJSON(t, fields{"id": "o", "title": "o", "namespace": "elsewhere"})
	if a := send(t, peer, pushBody(t, []string{other})); a.status != http.StatusOK {
		t.Errorf("another namespace: got %d %s, want 200", a.status, a.body)
	}
}
