package refpeer_test

import (
	"database/sql"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"quorumbox/internal/refpeer"
)

// oldSchema is that of the files before links, the archive and the others.
const oldSchema = `
create table memories (id text not null primary key, namespace text not null, title text not null, updated_at text not null,
	payload text not null, unique (namespace, title));
create table log (last_seq integer not null primary key, push integer not null, at integer not null,
	idempotency_key text not null, peer_id text not null, nonce text not null, items blob not null);
create table nonces (seq integer not null primary key, peer_id text not null, fingerprint blob not null);
create table quota (day text not null, agent_id text not null, namespace text not null, used integer not null,
	primary key (day, agent_id, namespace)) without rowid;`

// TestOldFile wants a file of before to keep what it holds and to take what is
// new.
func TestOldFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, "refpeer.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), oldSchema); err != nil {
		t.Fatal(err)
	}
	for query, arg := range map[string]any{
		`insert into memories values ('m-1', 'ns', 'title', '2026-01-01T00:00:00+00:00', ?)`: memoryJSON(t, nil),
		`insert into log values (1, 1, 0, 'key', 'ai:leader', 'nonce', ?)`:                   []byte("\x05store\x08inserted\x03m-1\x02ns\x00"),
		`insert into quota values (date('now'), ?, 'ns', 1)`:                                 sender,
	} {
		if _, err := db.ExecContext(t.Context(), query, arg); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time, nothing is missing
		peer, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: dir, QuotaPerDay: 2})
		if err != nil {
			t.Fatal(err)
		}
		if got := ids(rows(t, peer)); !cmp.Equal(got, []string{"m-1"}) {
			t.Errorf("got rows %v, want m-1", got)
		}
		want := refpeer.LogEntry{
			Seq: 1, Push: 1, Op: "store", ID: "m-1", Namespace: "ns", Result: "inserted",
			IdempotencyKey: "key", PeerID: "ai:leader", Nonce: "nonce",
		}
		if diff := cmp.Diff(want, entries(t, peer)[0], cmpopts.IgnoreFields(refpeer.LogEntry{}, "At")); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
		apply(t, peer, fields{"pendings": []any{pendingOf("p", nil)}, "namespace_meta": []any{standardOf("n", "m-1", nil)}})
		if err := peer.Close(); err != nil {
			t.Fatal(err)
		}
	}
	peer := openPeer(t, refpeer.Config{DataDir: dir, QuotaPerDay: 2})
	store(t, peer, nil)
	if a := send(t, peer, pushBody(t, []string{memoryJSON(t, nil)})); a.status != http.StatusTooManyRequests {
		t.Errorf("got %d, want 429: the day's count of before stays", a.status)
	}
	apply(t, peer, fields{"deletions": []string{"m-1"}})
	if s := state(t, peer); len(s.Pendings) != 1 || len(s.NamespaceMeta) != 0 {
		t.Errorf("got %+v, want the action alone: a memory of before takes its standard with it", s)
	}
}
