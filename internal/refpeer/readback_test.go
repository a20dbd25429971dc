package refpeer_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/refpeer"
)

// TestReadDefaults wants a row to be shown with all fields that a daemon fills
// in, and without nulls.
func TestReadDefaults(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	store(t, peer, fields{"metadata": nil})
	want := map[string]any{
		"id": "m-1", "tier": "long", "namespace": "ns", "title": "title", "content": "content", "tags": []any{"a"},
		"priority": 5.0, "confidence": 0.5, "source": "user", "access_count": 0.0,
		"created_at": "2026-01-01T00:00:00+00:00", "updated_at": "2026-01-01T00:00:00+00:00",
		"metadata": map[string]any{}, "reflection_depth": 0.0, "memory_kind": "observation", "citations": []any{},
		"confidence_source": "caller_provided", "version": 1.0,
	}
	if diff := cmp.Diff([]map[string]any{want}, rows(t, peer)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// TestReadEverything wants every field of a memory back as it was sent,
// whatever its form in the body.
func TestReadEverything(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	all := fields{
		"content": "quote \" backslash \\ newline \n tab \t ünïcödé 😀 <&>", "last_accessed_at": "2026-01-01T00:00:00+00:00",
		"tier": "mid", "expires_at": "2099-01-01T00:00:00+00:00", "entity_id": "e", "persona_version": 3.0,
		"source_uri": "doc:x", "source_span": span(1), "confidence_signals": map[string]any{"freshness_factor": 0.5},
		"confidence_decayed_at": "2026-01-01T00:00:00+00:00", "metadata": map[string]any{"scope": "team", "deep": []any{map[string]any{"a": " b "}}},
		"reflection_depth": 2.0, "memory_kind": "claim", "citations": []any{cite("x")}, "confidence_source": "decayed",
		"version": 7.0, "tags": []any{"x", "ü"}, "confidence": 0.125, "priority": 9.0, "access_count": 4.0, "source": "hook",
		"id": "all", "title": "all", "namespace": "a/b", "created_at": "2026-01-01T00:00:00+00:00", "updated_at": "2026-01-01T00:00:00+00:00",
	}
	compact := memoryJSON(t, all)
	escaped := strings.NewReplacer("ü", `\u00fc`, "😀", `\ud83d\ude00`, `"id":"all"`, `"id":"all-escaped","unknown":[{}]`,
		`"title":"all"`, `"title":"all escaped"`).Replace(compact)
	body := `{"sender_agent_id":"ai:leader","memories":[` + compact + ",\n" + escaped + `]}`
	if a := send(t, peer, body); a.status != http.StatusOK || a.json(t)["applied"] != 2.0 {
		t.Fatalf("got %d %s, want 2 applied", a.status, a.body)
	}
	got := rows(t, peer)
	want := map[string]any(all)
	for i, name := range []string{"all", "all escaped"} {
		want["id"], want["title"] = strings.ReplaceAll(name, " ", "-"), name
		if diff := cmp.Diff(want, got[i]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestReadSpaced(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	body := `{ "sender_agent_id" : "ai:leader" ,
		"memories" : [ { "id" : "m" , "tier" : "long" , "namespace" : "n" , "title" : "t" , "content" : "a  b" ,
		"tags" : [ "x y" , "\" , z" ] , "priority" : 1 , "confidence" : 1.0 , "source" : "api" , "access_count" : 0 ,
		"created_at" : "2026-01-01T00:00:00Z" , "updated_at" : "2026-01-01T00:00:00Z" , "source_uri" : null ,
		"metadata" : { "scope" : "team" , "k" : [ 1 , { } , "a \\\" b" ] } } ] }`
	if a := send(t, peer, body); a.status != http.StatusOK {
		t.Fatalf("got %d %s, want 200", a.status, a.body)
	}
	line := string(get(t, peer, "/_ref/memories").body)
	for _, part := range []string{
		`"tags":["x y","\" , z"]`, `"metadata":{"scope":"team","k":[1,{},"a \\\" b"]}`, `"confidence":1.0`, `"content":"a  b"`,
	} {
		if !strings.Contains(line, part) {
			t.Errorf("got %s, want it to contain %s", line, part)
		}
	}
	if strings.Count(line, "\n") != 1 || strings.Contains(line, "source_uri") {
		t.Errorf("got %q, want one line without nulls", line)
	}
}

func TestReadOne(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	for scope, metadata := range map[string]map[string]any{
		"private":    {"agent_id": "ai:x", "scope": "private"},
		"none":       {"agent_id": "ai:x"},
		"collective": {"agent_id": "ai:x", "scope": "collective"},
		"nobody":     {},
		"blank":      {"agent_id": ""},
	} {
		store(t, peer, fields{"id": scope, "title": scope, "metadata": metadata})
	}
	for _, tt := range []struct {
		id, agent string
		status    int
	}{
		{"collective", "", 200},
		{"collective", "ai:y", 200},
		{"private", "", 404},
		{"private", "ai:y", 404},
		{"private", "ai:x", 200},
		{"none", "", 404},
		{"none", "ai:x", 200},
		{"nobody", "", 404},
		{"nobody", "ai:x", 404},
		{"blank", "", 404},
		{"absent", "ai:x", 404},
	} {
		t.Run(tt.id+" for "+tt.agent, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/memories/"+tt.id, nil)
			r.Header.Set("X-Agent-Id", tt.agent)
			a := serve(peer.Handler(), r)
			if a.status != tt.status {
				t.Fatalf("got %d %s, want %d", a.status, a.body, tt.status)
			}
			if tt.status != http.StatusOK {
				return
			}
			got := a.json(t)
			if id := got["memory"].(map[string]any)["id"]; id != tt.id || len(got["links"].([]any)) != 0 {
				t.Errorf("got %v, want the memory %s and no links", got, tt.id)
			}
		})
	}
}

func TestReadList(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	var memories []string
	for i := range 30 {
		id := fmt.Sprintf("m-%02d", i)
		memories = append(memories, memoryJSON(t, fields{"id": id, "title": id, "namespace": fmt.Sprintf("n/%d", i%2)}))
	}
	now := time.Now().UTC()
	memories = append(memories,
		memoryJSON(t, fields{"id": "p", "title": "p", "namespace": "hidden", "metadata": map[string]any{"agent_id": "ai:x"}}),
		memoryJSON(t, fields{"id": "e", "title": "e", "namespace": "hidden", "tier": "mid", "expires_at": "2026-01-01T00:00:00Z"}),
		memoryJSON(t, fields{"id": "s", "title": "s", "namespace": "hidden", "tier": "short", "created_at": now.Add(-7 * time.Hour).Format(time.RFC3339)}),
		memoryJSON(t, fields{"id": "d", "title": "d", "namespace": "hidden", "tier": "mid", "created_at": now.Add(-8 * 24 * time.Hour).Format(time.RFC3339)}),
		memoryJSON(t, fields{"id": "l", "title": "l", "namespace": "hidden", "tier": "short", "created_at": now.Add(-5 * time.Hour).Format(time.RFC3339)}),
	)
	if a := send(t, peer, pushBody(t, memories)); a.json(t)["applied"] != 35.0 {
		t.Fatalf("got %s, want 35 applied", a.body)
	}
	for _, tt := range []struct {
		query string
		count int
		first string
	}{
		{"?namespace=n/0", 15, "m-00"},
		{"?namespace=n/1&limit=3", 3, "m-01"},
		{"?namespace=n/1&limit=3&offset=14", 1, "m-29"},
		{"?namespace=n/1&offset=15", 0, ""},
		{"?namespace=hidden", 1, "l"},
		{"?namespace=nowhere", 0, ""},
		{"?limit=100000&offset=3", 30, "m-00"},
		{"?limit=0", 0, ""},
		{"", 18, "l"}, // the default of 20 is cut before what may not be seen is left out
	} {
		t.Run(tt.query, func(t *testing.T) {
			got := get(t, peer, "/api/v1/memories"+tt.query).json(t)
			list := got["memories"].([]any)
			if len(list) != tt.count || got["count"] != float64(tt.count) {
				t.Fatalf("got %d memories and count %v, want %d", len(list), got["count"], tt.count)
			}
			if tt.count > 0 {
				if id := list[0].(map[string]any)["id"]; id != tt.first {
					t.Errorf("first: got %v, want %s", id, tt.first)
				}
			}
		})
	}
	for _, query := range []string{"?limit=x", "?offset=-1"} {
		if a := get(t, peer, "/api/v1/memories"+query); a.status != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", query, a.status)
		}
	}
	if got := get(t, peer, "/api/v1/stats").json(t); got["total_memories"] != 35.0 || got["namespaces"] != 3.0 {
		t.Errorf("stats: got %v, want 35 memories in 3 namespaces", got)
	}
	if got := len(rows(t, peer)); got != 35 {
		t.Errorf("/_ref/memories: got %d rows, want all 35", got)
	}
}

// TestKeyGuardsReads wants the api key on every path but health.
func TestKeyGuardsReads(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{APIKey: "k", ID: "ref:guarded"})
	for _, path := range []string{
		"/api/v1/memories", "/api/v1/memories/x", "/api/v1/stats", "/api/v1/links/x", "/api/v1/archive", "/api/v1/archive/stats",
		"/api/v1/pending", "/api/v1/namespaces", "/api/v1/namespaces/x/standard", "/api/v1/sync/since", "/metrics",
		"/_ref/memories", "/_ref/state", "/_ref/log", "/_ref/counters", "/_ref/faults",
	} {
		if a := get(t, peer, path); a.status != http.StatusUnauthorized {
			t.Errorf("%s without the key: got %d, want 401", path, a.status)
		}
		if a := get(t, peer, path+"?api_key=k"); a.status == http.StatusUnauthorized {
			t.Errorf("%s with the key: got 401", path)
		}
	}
	if a := get(t, peer, "/api/v1/health"); a.status != http.StatusOK || a.json(t)["peer_id"] != "ref:guarded" {
		t.Errorf("health: got %d %s, want 200 and the peer's id", a.status, a.body)
	}
}

// TestCrossOrigin wants a page of another origin not to set faults.
func TestCrossOrigin(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodDelete, "/_ref/faults", nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if a := serve(peer.Handler(), r); a.status != http.StatusForbidden {
		t.Errorf("got %d, want 403", a.status)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		cfg  refpeer.Config
		text string
	}{
		{"no folder", refpeer.Config{}, "set DataDir"},
		{"bad id", refpeer.Config{DataDir: t.TempDir(), ID: "a b"}, "peer id"},
		{"negative quota", refpeer.Config{DataDir: t.TempDir(), QuotaPerDay: -1}, "quota per day"},
		{"negative quota of bytes", refpeer.Config{DataDir: t.TempDir(), QuotaBytesPerDay: -1}, "quota of bytes"},
		{"negative quota of links", refpeer.Config{DataDir: t.TempDir(), QuotaLinksPerDay: -1}, "quota of links"},
		{"negative cap", refpeer.Config{DataDir: t.TempDir(), MaxCollection: -1}, "max collection"},
		{"negative dimension", refpeer.Config{DataDir: t.TempDir(), EmbeddingDim: -1}, "embedding dim"},
		{"unknown backend", refpeer.Config{DataDir: t.TempDir(), Backend: "mysql"}, "use sqlite or postgres"},
		{"domain without a bundle", refpeer.Config{DataDir: t.TempDir(), TrustDomain: "x"}, "set TrustBundleDir"},
		{"bad admin", refpeer.Config{DataDir: t.TempDir(), AdminAgents: []string{"a b"}}, "no agent id"},
		{
			"bad attestation",
			refpeer.Config{DataDir: t.TempDir(), Attestation: refpeer.Attestation{"a b": {}}},
			"no peer id",
		},
		{"bad fault", refpeer.Config{DataDir: t.TempDir(), Faults: refpeer.Faults{{Mode: "tired"}}}, "unknown fault mode"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := refpeer.Open(t.Context(), tt.cfg); err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want an error with %q", err, tt.text)
			}
		})
	}
	missing := filepath.Join(t.TempDir(), "missing")
	for what, cfg := range map[string]refpeer.Config{
		"enrolled keys": {DataDir: t.TempDir(), KeysDir: missing},
		"trust bundle":  {DataDir: t.TempDir(), KeysDir: t.TempDir(), TrustBundleDir: missing},
	} {
		if _, err := refpeer.Open(t.Context(), cfg); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), what) {
			t.Errorf("missing %s: got %v, want %v that names them", what, err, fs.ErrNotExist)
		}
	}
}
