package refpeer_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"go.uber.org/goleak"

	"quorumbox/internal/refpeer"
)

const sender = "ai:leader"

func TestMain(m *testing.M) {
	if runAsVictim() {
		return
	}
	goleak.VerifyTestMain(m)
}

// openPeer opens a peer that is closed when the test ends. An empty DataDir
// becomes a new folder.
func openPeer(tb testing.TB, cfg refpeer.Config) *refpeer.Peer {
	tb.Helper()
	if cfg.DataDir == "" {
		cfg.DataDir = tb.TempDir()
	}
	cfg.Logger = slog.New(slog.NewTextHandler(tb.Output(), nil))
	peer, err := refpeer.Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatalf("open peer: %v", err)
	}
	tb.Cleanup(func() {
		if err := peer.Close(); err != nil {
			tb.Errorf("close peer: %v", err)
		}
	})
	return peer
}

// answer is what a peer answered.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// json decodes the body.
func (a answer) json(tb testing.TB) map[string]any {
	tb.Helper()
	var out map[string]any
	if err := json.Unmarshal(a.body, &out); err != nil {
		tb.Fatalf("answer %d is no JSON object: %v: %q", a.status, err, a.body)
	}
	return out
}

// serve runs one request through the handler, without a network. A cut
// connection is status 0.
func serve(handler http.Handler, r *http.Request) (a answer) {
	defer func() {
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler { //nolint:errorlint // a panic value, compared as net/http does
				panic(v)
			}
			a = answer{}
		}
	}()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return answer{status: w.Code, header: w.Header(), body: w.Body.Bytes()}
}

func pushRequest(ctx context.Context, body string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/api/v1/sync/push", bytes.NewReader([]byte(body)))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Peer-Id", sender)
	return r
}

// send pushes body unsigned.
func send(tb testing.TB, peer *refpeer.Peer, body string) answer {
	tb.Helper()
	return serve(peer.Handler(), pushRequest(tb.Context(), body))
}

func get(tb testing.TB, peer *refpeer.Peer, path string) answer {
	tb.Helper()
	return serve(peer.Handler(), httptest.NewRequestWithContext(tb.Context(), http.MethodGet, path, nil))
}

// fields overwrites or adds fields of a memory; a nil value removes one.
type fields map[string]any

// memoryJSON is a valid memory with the given changes.
func memoryJSON(tb testing.TB, changes fields) string {
	tb.Helper()
	m := map[string]any{
		"id": "m-1", "tier": "long", "namespace": "ns", "title": "title", "content": "content", "tags": []string{"a"},
		"priority": 5, "confidence": 0.5, "source": "user", "access_count": 0,
		"created_at": "2026-01-01T00:00:00+00:00", "updated_at": "2026-01-01T00:00:00+00:00",
		"metadata": map[string]any{"agent_id": sender, "scope": "collective"},
	}
	for name, value := range changes {
		if value == nil {
			delete(m, name)
			continue
		}
		m[name] = value
	}
	b, err := json.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// pushBody is a push of memories and deletions.
func pushBody(tb testing.TB, memories []string, deletions ...string) string {
	tb.Helper()
	raw := make([]json.RawMessage, 0, len(memories))
	for _, m := range memories {
		raw = append(raw, json.RawMessage(m))
	}
	b, err := json.Marshal(map[string]any{"sender_agent_id": sender, "memories": raw, "deletions": append([]string{}, deletions...)})
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

// store pushes one memory and wants 200.
func store(tb testing.TB, peer *refpeer.Peer, changes fields) map[string]any {
	tb.Helper()
	a := send(tb, peer, pushBody(tb, []string{memoryJSON(tb, changes)}))
	if a.status != http.StatusOK {
		tb.Fatalf("push: got %d %s, want 200", a.status, a.body)
	}
	return a.json(tb)
}

// rows reads all memories of a peer, ordered by id.
func rows(tb testing.TB, peer *refpeer.Peer) []map[string]any {
	tb.Helper()
	var b bytes.Buffer
	if err := peer.Memories(tb.Context(), &b); err != nil {
		tb.Fatal(err)
	}
	return lines[map[string]any](tb, &b)
}

// entries reads the whole apply log of a peer.
func entries(tb testing.TB, peer *refpeer.Peer) []refpeer.LogEntry {
	tb.Helper()
	var b bytes.Buffer
	if err := peer.Log(tb.Context(), &b, 0); err != nil {
		tb.Fatal(err)
	}
	return lines[refpeer.LogEntry](tb, &b)
}

func lines[T any](tb testing.TB, r io.Reader) []T {
	tb.Helper()
	out := []T{}
	for dec := json.NewDecoder(r); dec.More(); {
		var v T
		if err := dec.Decode(&v); err != nil {
			tb.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

// eventually polls until done or fails after ten seconds.
func eventually(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			tb.Fatalf("did not happen within 10 s: %s", what)
		}
	}
}

func timestamp(second int) string {
	return fmt.Sprintf("2026-01-01T00:%02d:%02d+00:00", second/60%60, second%60)
}
