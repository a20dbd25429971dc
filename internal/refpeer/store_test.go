package refpeer_test

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"quorumbox/internal/refpeer"
)

// TestConcurrentPushes wants pushes that share a commit to be whole, each with
// an answer of its own.
func TestConcurrentPushes(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{Sync: refpeer.Off})
	const senders, pushes, batch = 16, 20, 3
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for n := range pushes {
				var memories []string
				for i := range batch {
					id := fmt.Sprintf("%d-%d-%d", s, n, i)
					memories = append(memories, memoryJSON(t, fields{"id": id, "title": id}))
				}
				a := send(t, peer, pushBody(t, memories, fmt.Sprintf("%d-%d-0", s, n), "none"))
				got := a.json(t)
				if a.status != http.StatusOK || got["applied"] != 3.0 || got["deleted"] != 1.0 || got["noop"] != 1.0 {
					t.Errorf("got %d %s, want applied 3, deleted 1, noop 1", a.status, a.body)
				}
			}
		})
	}
	wg.Wait()
	if got, want := len(rows(t, peer)), senders*pushes*(batch-1); got != want {
		t.Errorf("got %d rows, want %d", got, want)
	}
	const items = batch + 2
	log := entries(t, peer)
	if len(log) != senders*pushes*items {
		t.Fatalf("got %d log entries, want %d", len(log), senders*pushes*items)
	}
	for i, e := range log {
		if e.Seq != int64(i)+1 || e.Push != int64(i/items)+1 {
			t.Fatalf("entry %d: got number %d of push %d, want %d of %d", i, e.Seq, e.Push, i+1, i/items+1)
		}
	}
	counters := peer.Counters()
	if counters.Items != int64(len(log)) || counters.Pushes["200"] != senders*pushes || counters.Results[refpeer.ResultInserted] != senders*pushes*batch {
		t.Errorf("got counters %+v, want those of %d pushes", counters, senders*pushes)
	}
	if counters.ConcurrentPushes != 0 || counters.MaxConcurrentPushes < 1 || counters.MaxConcurrentPushes > senders {
		t.Errorf("got %d pushes running and at most %d, want 0 and 1 to %d",
			counters.ConcurrentPushes, counters.MaxConcurrentPushes, senders)
	}
}

// TestFailedPush wants a push that fails inside to be answered 500 without a
// trace of it, but for its nonce, and without harm to others.
func TestFailedPush(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := refpeer.Config{DataDir: dir, KeysDir: keysDir(t)}
	peer := openPeer(t, cfg)
	push := func(nonce string, memories ...string) answer {
		body := pushBody(t, memories)
		r := pushRequest(t.Context(), body)
		r.Header.Set("X-Memory-Sig", sign(body, nonce))
		r.Header.Set("X-Memory-Nonce", nonce)
		return serve(peer.Handler(), r)
	}
	push("1", memoryJSON(t, fields{"id": "broken", "title": "broken"}))
	db, err := sql.Open("sqlite", filepath.Join(dir, "refpeer.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `update memories set payload = '{' where id = 'broken'`); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			id := fmt.Sprintf("good-%d", i)
			if a := push(id, memoryJSON(t, fields{"id": id, "title": id})); a.status != http.StatusOK {
				t.Errorf("%s: got %d %s, want 200", id, a.status, a.body)
			}
			a := push(fmt.Sprintf("bad-%d", i), memoryJSON(t, fields{"id": "half", "title": "half"}),
				memoryJSON(t, fields{"id": "broken", "title": "broken", "updated_at": timestamp(i + 1)}))
			if a.status != http.StatusInternalServerError || strings.Contains(string(a.body), dir) {
				t.Errorf("got %d %s, want 500 without paths", a.status, a.body)
			}
		})
	}
	wg.Wait()
	for i, e := range entries(t, peer) {
		if e.Seq != int64(i)+1 || e.Push != int64(i)+1 {
			t.Errorf("entry %d: got number %d of push %d, want no gaps", i+1, e.Seq, e.Push)
		}
		if e.ID == "half" || e.ID == "broken" && e.Push != 1 {
			t.Errorf("got the log entry %+v of a failed push, want none", e)
		}
	}
	if a := get(t, peer, "/api/v1/memories/half"); a.status != http.StatusNotFound {
		t.Errorf("got %d for a memory of a failed push, want 404", a.status)
	}
	if a := push("bad-0"); a.status != http.StatusUnauthorized {
		t.Errorf("nonce of a failed push: got %d, want 401", a.status)
	}
	if a := get(t, peer, "/api/v1/memories/broken"); a.status != http.StatusInternalServerError {
		t.Errorf("damaged row: got %d, want 500", a.status)
	}
	if a := get(t, peer, "/_ref/memories"); a.status != 0 {
		t.Errorf("rows with a damaged one: got %d, want the stream cut", a.status)
	}
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	peer = openPeer(t, cfg)
	if a := push("bad-1"); a.status != http.StatusUnauthorized {
		t.Errorf("nonce of a failed push, after reopening: got %d, want 401", a.status)
	}
}

// TestFolderIsTaken wants a second peer to be refused in the same folder, and
// the folder to be free again afterwards.
func TestFolderIsTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: dir}); err == nil || !strings.Contains(err.Error(), "another peer") {
		t.Errorf("second peer: got %v, want an error that names another peer", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	openPeer(t, refpeer.Config{DataDir: dir})
}

// TestRelativeFolder wants a folder below the working directory, made if needed.
func TestRelativeFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	peer := openPeer(t, refpeer.Config{DataDir: filepath.Join("a b", "50%", "ü?#")})
	store(t, peer, nil)
	if _, err := os.Stat(filepath.Join("a b", "50%", "ü?#", "refpeer.db")); err != nil {
		t.Error(err)
	}
}
