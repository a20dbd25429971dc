package refpeer_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/refpeer"
)

func sinceRequest(t *testing.T, query string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/sync/since"+query, nil)
	r.Header.Set("X-Peer-Id", sender)
	return r
}

// TestSinceVector checks the signature over the three lines, made elsewhere
// (protocol test vectors), and its nonce.
func TestSinceVector(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pub, err := hex.DecodeString("03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8")
	if err != nil {
		t.Fatal(err)
	}
	writeKey(t, dir, pub)
	data := t.TempDir()
	cfg := refpeer.Config{DataDir: data, KeysDir: dir}
	call := func(peer *refpeer.Peer, query string) answer {
		r := sinceRequest(t, query)
		r.Header.Set("X-Memory-Sig",
			"ed25519=njnqmSq2tcHn5aa/m1jiHTYRvO63+bAquSLJFB982tBWau5eILxCvr4bZ3Ee/3P4Pr7EB+IaEfeRtHINOlmgAQ==")
		r.Header.Set("X-Memory-Nonce", "00000000-0000-4000-8000-000000000001")
		return serve(peer.Handler(), r)
	}
	want := func(what string, a answer, status int, text string) {
		t.Helper()
		if a.status != status || !strings.Contains(string(a.body), text) {
			t.Errorf("%s: got %d %s, want %d %s", what, a.status, a.body, status, text)
		}
	}
	peer, err := refpeer.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	want("another query", call(peer, "?limit=501&peer=ai%3Aleader"), 401, "x_memory_sig_bad_signature")
	want("the same query, written otherwise", call(peer, "?limit=500&peer=ai:leader"), 401, "x_memory_sig_bad_signature")
	want("signed", call(peer, "?limit=500&peer=ai%3Aleader"), 200, "no_allowlist_default_deny")
	want("replayed", call(peer, "?limit=500&peer=ai%3Aleader"), 401, "x_memory_nonce_replay")
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	want("replayed after reopening", call(openPeer(t, cfg), "?limit=500&peer=ai%3Aleader"), 401, "x_memory_nonce_replay")
}

func TestSinceAuth(t *testing.T) {
	t.Parallel()
	signature := func(query string) string {
		signed := ed25519.Sign(nodeKey(), []byte("GET\n/api/v1/sync/since\n"+query+"\x00n"))
		return "ed25519=" + base64.StdEncoding.EncodeToString(signed)
	}
	for _, tt := range []struct {
		name    string
		cfg     refpeer.Config
		query   string
		headers map[string]string
		status  int
		text    string
	}{
		{"open", refpeer.Config{}, "", nil, 200, ""},
		{"api key missing", refpeer.Config{APIKey: "k"}, "", nil, 401, "missing or invalid API key"},
		{"api key", refpeer.Config{APIKey: "k"}, "", map[string]string{"X-Api-Key": "k"}, 200, ""},
		{"no peer id", refpeer.Config{}, "", map[string]string{"X-Peer-Id": ""}, 403, "peer_id_header_missing"},
		{"not listed", refpeer.Config{Attestation: refpeer.Attestation{}}, "", nil, 401, "x_peer_id_not_in_allowlist"},
		{"enrolled, unsigned", refpeer.Config{KeysDir: keysDir(t)}, "", nil, 401, "x_memory_sig_missing"},
		{
			"enrolled, signed",
			refpeer.Config{KeysDir: keysDir(t)},
			"",
			map[string]string{"X-Memory-Sig": signature(""), "X-Memory-Nonce": "n"},
			200, "",
		},
		{"bad since", refpeer.Config{}, "?since=yesterday", nil, 400, "RFC 3339"},
		{"since with a bare plus", refpeer.Config{}, "?since=2026-01-01T00:00:00+00:00", nil, 400, "%2B"},
		{"bad limit", refpeer.Config{}, "?limit=x", nil, 400, "limit"},
		{"negative limit", refpeer.Config{}, "?limit=-1", nil, 400, "limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			peer := openPeer(t, tt.cfg)
			r := sinceRequest(t, tt.query)
			for name, value := range tt.headers {
				r.Header.Set(name, value)
			}
			if a := serve(peer.Handler(), r); a.status != tt.status || !strings.Contains(string(a.body), tt.text) {
				t.Errorf("got %d %s, want %d %s", a.status, a.body, tt.status, tt.text)
			}
		})
	}
}

// TestSinceProjection covers which rows a peer may pull: its namespaces, and in
// them what is shared, or from or for it.
func TestSinceProjection(t *testing.T) {
	t.Parallel()
	allow := refpeer.Attestation{sender: {AllowedNamespaces: []string{"a", "b/**"}}}
	for _, tt := range []struct {
		name     string
		cfg      refpeer.Config
		query    string
		ids      []string
		status   string
		scope    float64
		private  float64
		limit    float64
		earliest any
		latest   any
	}{
		{
			"scoped",
			refpeer.Config{Attestation: allow},
			"",
			[]string{"1-team", "2-shared", "3-mine", "5-for-me", "8-deep", "0-last"},
			"scoped", 2, 2, 500, timestamp(1), timestamp(10),
		},
		{
			"since",
			refpeer.Config{Attestation: allow},
			"?since=" + url.QueryEscape(timestamp(4)),
			[]string{"5-for-me", "8-deep", "0-last"},
			"scoped", 2, 1, 500, timestamp(5), timestamp(10),
		},
		{
			"the limit cuts before",
			refpeer.Config{Attestation: allow},
			"?limit=4",
			[]string{"1-team", "2-shared", "3-mine"},
			"scoped", 0, 1, 4, timestamp(1), timestamp(3),
		},
		{"the limit is bounded", refpeer.Config{Attestation: allow}, "?limit=20000&since=2027-01-01T00:00:00Z", []string{}, "scoped", 0, 0, 10000, nil, nil},
		{"no namespaces", refpeer.Config{Attestation: refpeer.Attestation{sender: {}}}, "", []string{}, "scoped", 10, 0, 500, nil, nil},
		{"no allowlist", refpeer.Config{}, "", []string{}, "no_allowlist_default_deny", 0, 0, 500, nil, nil},
		{
			"no allowlist, peers trusted",
			refpeer.Config{SyncTrustPeer: refpeer.On},
			"?limit=3",
			[]string{"1-team", "2-shared", "3-mine"},
			"legacy_bypass", 0, 0, 3, timestamp(1), timestamp(3),
		},
		{
			"an allowlist counts although peers are trusted",
			refpeer.Config{Attestation: allow, SyncTrustPeer: refpeer.On},
			"",
			[]string{"1-team", "2-shared", "3-mine", "5-for-me", "8-deep", "0-last"},
			"scoped", 2, 2, 500, timestamp(1), timestamp(10),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			writer, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			for i, m := range []struct {
				id, ns   string
				metadata map[string]any
			}{
				{"1-team", "a", map[string]any{"agent_id": "ai:x", "scope": "team"}},
				{"2-shared", "a", map[string]any{"agent_id": "ai:x", "federation_share": true}},
				{"3-mine", "a", map[string]any{"agent_id": sender, "scope": "private"}},
				{"4-private", "a", map[string]any{"agent_id": "ai:x", "scope": "private"}},
				{"5-for-me", "a", map[string]any{"agent_id": "ai:x", "target_agent_id": sender}},
				{"6-nobody", "a", map[string]any{"federation_share": "true"}},
				{"7-elsewhere", "a/b", map[string]any{"scope": "team"}},
				{"8-deep", "b/c/d", map[string]any{"scope": "collective"}},
				{"9-above", "b", map[string]any{"scope": "collective"}},
				{"0-last", "a", map[string]any{"scope": "collective"}},
			} {
				store(t, writer, fields{"id": m.id, "title": m.id, "namespace": m.ns, "metadata": m.metadata, "updated_at": timestamp(i + 1)})
			}
			if err := writer.Close(); err != nil {
				t.Fatal(err)
			}
			tt.cfg.DataDir = dir
			a := serve(openPeer(t, tt.cfg).Handler(), sinceRequest(t, tt.query))
			got := a.json(t)
			pulled := []string{}
			for _, m := range got["memories"].([]any) {
				pulled = append(pulled, m.(map[string]any)["id"].(string))
			}
			if !cmp.Equal(pulled, tt.ids) {
				t.Errorf("got %v, want %v", pulled, tt.ids)
			}
			delete(got, "memories")
			var since any
			if r := sinceRequest(t, tt.query); r.FormValue("since") != "" {
				since = r.FormValue("since")
			}
			want := map[string]any{
				"count": float64(len(tt.ids)), "limit": tt.limit, "updated_since": since, "earliest_updated_at": tt.earliest,
				"latest_updated_at": tt.latest, "excluded_for_scope": tt.scope, "excluded_for_scope_private": tt.private,
				"scope_status": tt.status,
			}
			if diff := cmp.Diff(want, got); diff != "" || a.status != http.StatusOK {
				t.Errorf("got %d (-want +got):\n%s", a.status, diff)
			}
		})
	}
}
