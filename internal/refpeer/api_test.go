package refpeer_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/refpeer"
)

// getAs reads a path as an agent.
func getAs(tb testing.TB, peer *refpeer.Peer, agent, path string) answer {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, path, nil)
	r.Header.Set("X-Agent-Id", agent)
	return serve(peer.Handler(), r)
}

// pick returns one field of every element of a list in an answer.
func pick(tb testing.TB, a answer, list, field string) []string {
	tb.Helper()
	out := []string{}
	elements, ok := a.json(tb)[list].([]any)
	if !ok {
		tb.Fatalf("got %d %s, want a list %s", a.status, a.body, list)
	}
	for _, e := range elements {
		out = append(out, fmt.Sprint(e.(map[string]any)[field]))
	}
	return out
}

// TestReadLinks wants links of both directions, but none to a memory that the
// caller may not see; beside a memory and alone.
func TestReadLinks(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	storeAll(t, peer, "a", "b", "c")
	store(t, peer, fields{"id": "private", "title": "private", "metadata": map[string]any{"agent_id": "ai:x"}})
	apply(t, peer, fields{"links": []any{
		linkOf("a", "related_to", "b"), linkOf("c", "supersedes", "a"), linkOf("b", "related_to", "c"),
		linkOf("a", "related_to", "private"),
	}})
	for _, tt := range []struct {
		id, agent string
		want      []string // sources
		status    int      // of the memory
	}{
		{"a", "", []string{"a", "c"}, 200},
		{"a", "ai:x", []string{"a", "a", "c"}, 200},
		{"b", "", []string{"a", "b"}, 200},
		{"private", "", []string{}, 404},
		{"private", "ai:x", []string{"a"}, 200},
		{"absent", "", []string{}, 404},
	} {
		t.Run(tt.id+" for "+tt.agent, func(t *testing.T) {
			a := getAs(t, peer, tt.agent, "/api/v1/links/"+tt.id)
			if got := pick(t, a, "links", "source_id"); !cmp.Equal(got, tt.want) || a.json(t)["count"] != float64(len(tt.want)) {
				t.Errorf("got %s, want links from %v", a.body, tt.want)
			}
			a = getAs(t, peer, tt.agent, "/api/v1/memories/"+tt.id)
			if a.status != tt.status {
				t.Fatalf("memory: got %d, want %d", a.status, tt.status)
			}
			if tt.status == http.StatusOK {
				if got := pick(t, a, "links", "source_id"); !cmp.Equal(got, tt.want) {
					t.Errorf("memory: got links from %v, want %v", got, tt.want)
				}
			}
		})
	}
}

func TestReadArchive(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{AdminAgents: []string{"ai:admin", "ai:other"}})
	var all []string
	for i := range 60 {
		all = append(all, fmt.Sprintf("m-%02d", i))
	}
	storeAll(t, peer, all...)
	store(t, peer, fields{"id": "z", "title": "z", "namespace": "elsewhere"})
	apply(t, peer, fields{"archives": append(all, "z")})
	for query, want := range map[string]int{"": 50, "?limit=3": 3, "?limit=0": 0, "?limit=100000": 61} {
		a := getAs(t, peer, "ai:admin", "/api/v1/archive"+query)
		got := pick(t, a, "archived", "id")
		if len(got) != want || a.json(t)["count"] != float64(want) || want > 0 && got[0] != "m-00" {
			t.Errorf("%s: got %v, want %d from m-00", query, got, want)
		}
	}
	for query, want := range map[string][]string{
		"?limit=2&offset=1": {"m-01", "m-02"}, "?offset=59": {"m-59", "z"}, "?offset=61": {},
	} {
		if got := pick(t, getAs(t, peer, "ai:admin", "/api/v1/archive"+query), "archived", "id"); !cmp.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", query, got, want)
		}
	}
	for _, query := range []string{"?limit=x", "?offset=-1"} {
		if a := getAs(t, peer, "ai:admin", "/api/v1/archive"+query); a.status != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", query, a.status)
		}
	}
	want := map[string]any{"archived_total": 61.0, "by_namespace": []any{
		map[string]any{"namespace": "elsewhere", "count": 1.0}, map[string]any{"namespace": "ns", "count": 60.0},
	}}
	if diff := cmp.Diff(want, getAs(t, peer, "ai:other", "/api/v1/archive/stats").json(t)); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
	for _, path := range []string{"/api/v1/archive", "/api/v1/archive/stats", "/api/v1/stats"} {
		for _, agent := range []string{"", "ai:nobody"} {
			if a := getAs(t, peer, agent, path); a.status != http.StatusForbidden {
				t.Errorf("%s as %q: got %d, want 403", path, agent, a.status)
			}
		}
	}
}

func TestReadPending(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	apply(t, peer, fields{"pendings": []any{
		pendingOf("a", fields{"namespace": "x/y"}), pendingOf("b", nil), pendingOf("c", nil),
	}})
	apply(t, peer, fields{"pending_decisions": []any{decisionOf("c", false)}})
	for query, want := range map[string][]string{
		"": {"a", "b", "c"}, "?namespace=x/y": {"a"}, "?status=pending": {"a", "b"}, "?status=rejected&namespace=ns": {"c"},
		"?limit=1": {"a"}, "?limit=1&offset=1": {"b"}, "?offset=3": {}, "?namespace=none": {},
	} {
		a := get(t, peer, "/api/v1/pending"+query)
		if got := pick(t, a, "pending", "id"); !cmp.Equal(got, want) || a.json(t)["count"] != float64(len(want)) {
			t.Errorf("%s: got %s, want %v", query, a.body, want)
		}
	}
	for _, query := range []string{"?limit=-1", "?offset=x"} {
		if a := get(t, peer, "/api/v1/pending"+query); a.status != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", query, a.status)
		}
	}
}

func TestReadStandards(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	storeAll(t, peer, "a", "b")
	store(t, peer, fields{"id": "p", "title": "p", "metadata": map[string]any{}})
	apply(t, peer, fields{"namespace_meta": []any{
		standardOf("org", "a", "ring"), standardOf("org/team", "b", "org"), standardOf("ring", "a", "org"), standardOf("hidden", "p", nil),
	}})
	if got := pick(t, get(t, peer, "/api/v1/namespaces"), "namespaces", "namespace"); !cmp.Equal(got, []string{"hidden", "org", "org/team", "ring"}) {
		t.Errorf("got %v, want all four, sorted", got)
	}
	for _, path := range []string{"/api/v1/namespaces?namespace=org/team", "/api/v1/namespaces/org/team/standard"} {
		got := get(t, peer, path).json(t)
		standard, _ := got["standard"].(map[string]any)
		if got["standard_id"] != "b" || got["parent_namespace"] != "org" || standard["title"] != "b" || got["chain"] != nil {
			t.Errorf("%s: got %v, want the standard b below org", path, got)
		}
	}
	a := get(t, peer, "/api/v1/namespaces?namespace=org/team&inherit=true")
	if got := pick(t, a, "chain", "namespace"); !cmp.Equal(got, []string{"org/team", "org", "ring"}) {
		t.Errorf("chain: got %v, want it to end where it meets itself", got)
	}
	if got := get(t, peer, "/api/v1/namespaces/hidden/standard").json(t); got["standard_id"] != "p" || got["standard"] != nil {
		t.Errorf("got %v, want the private standard's id alone", got)
	}
	for _, path := range []string{
		"/api/v1/namespaces?namespace=nowhere", "/api/v1/namespaces/nowhere/standard", "/api/v1/namespaces/org", "/api/v1/namespaces/standard",
	} {
		if a := get(t, peer, path); a.status != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", path, a.status)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{Attestation: refpeer.Attestation{sender: {}}})
	storeAll(t, peer, "a", "b")
	apply(t, peer, fields{"deletions": []string{"a", "x"}})
	r := pushRequest(t.Context(), emptyPush)
	r.Header.Set("X-Peer-Id", "ai:other")
	serve(peer.Handler(), r)
	a := get(t, peer, "/metrics")
	if !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Errorf("got the content type %q, want text/plain", a.header.Get("Content-Type"))
	}
	for _, line := range []string{
		"# TYPE refpeer_pushes_total counter", `refpeer_pushes_total{status="200"} 3`, `refpeer_pushes_total{status="401"} 1`,
		`refpeer_items_total{result="inserted"} 2`, `refpeer_items_total{result="noop"} 1`,
		`refpeer_refusals_total{tag="x_peer_id_not_in_allowlist"} 1`, "refpeer_duplicate_keys_total 0", "refpeer_memories 1",
	} {
		if !strings.Contains(string(a.body), line+"\n") {
			t.Errorf("got %s, want the line %s", a.body, line)
		}
	}
}

// TestStateIsWhole wants every list in the state, empty ones too, on one line.
func TestStateIsWhole(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	const want = `{"archived":[],"links":[],"pendings":[],"namespace_meta":[],"embeddings":[]}` + "\n"
	if a := get(t, peer, "/_ref/state"); string(a.body) != want {
		t.Errorf("got %s, want %s", a.body, want)
	}
}
