package verify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/peer"
	"quorumbox/internal/pgtest"
	"quorumbox/internal/refpeer"
	"quorumbox/internal/verify"
)

func TestMain(m *testing.M) { pgtest.Main(m, pgtest.Migrated(), pgtest.WithLeakCheck()) }

const (
	sender = "ai:leader"
	admin  = "ai:admin"
)

// world is a store, and a peer that gets nothing by itself.
type world struct {
	t      *testing.T
	pool   *pgxpool.Pool
	client *peer.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	receiver, err := refpeer.Open(t.Context(), refpeer.Config{DataDir: t.TempDir(), Sync: refpeer.Off, AdminAgents: []string{admin}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(receiver.Handler())
	client, err := peer.New(peer.Config{ID: "a", URL: server.URL, SenderID: sender, AllowNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.CloseIdle()
		server.Close()
		if err := receiver.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, pool: pgtest.New(t), client: client}
	w.exec(`insert into peers (id) values ('a')`)
	return w
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	if _, err := w.pool.Exec(w.t.Context(), sql, args...); err != nil {
		w.t.Fatal(err)
	}
}

// values of a memory over the defaults; a nil one removes it.
type values map[string]any

// store writes a memory, which everybody may see.
func (w *world) store(id string, more values) {
	w.t.Helper()
	m := values{
		"id": id, "namespace": "ns", "title": id, "content": "content of " + id, "tier": "long", "source": "api",
		"metadata": values{"agent_id": "ai:x", "scope": "team"},
	}
	maps.Copy(m, more)
	w.exec(`select memory_store($1)`, m)
}

// mirror makes the peer equal to the tables of the store, and says that it has acknowledged everything.
func (w *world) mirror() {
	w.t.Helper()
	archived := w.strings(`select memory_json(jsonb_populate_record(null::memories, to_jsonb(a)))::text from archived_memories a order by id`)
	w.push("memories", archived...)
	w.push("archives", w.strings(`select to_json(id)::text from archived_memories order by id`)...)
	w.push("memories", w.strings(`select memory_json(m)::text from memories m order by id`)...)
	w.push("links", w.strings(`select link_json(l)::text from memory_links l`)...)
	w.push("namespace_meta", w.strings(`select namespace_json(n)::text from namespace_meta n`)...)
	w.push("pendings", w.strings(`select pending_json(p)::text from pending_actions p`)...)
	w.settled()
}

// settled says that the peer has acknowledged everything.
func (w *world) settled() {
	w.t.Helper()
	w.exec(`delete from undispatched`)
}

// push sends one list to the peer.
func (w *world) push(list string, elements ...string) {
	w.t.Helper()
	for part := range slices.Chunk(elements, 1000) {
		body := map[string]any{"sender_agent_id": sender, "memories": []int{}}
		raw := make([]json.RawMessage, len(part))
		for i, e := range part {
			raw[i] = json.RawMessage(e)
		}
		body[list] = raw
		text, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.client.Post(w.t.Context(), peer.Request{Body: text}); err != nil {
			w.t.Fatalf("push %s: %v", list, err)
		}
	}
}

func (w *world) strings(sql string) []string {
	w.t.Helper()
	var list []string
	rows, err := w.pool.Query(w.t.Context(), sql)
	if err != nil {
		w.t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			w.t.Fatal(err)
		}
		list = append(list, text)
	}
	if rows.Err() != nil {
		w.t.Fatal(rows.Err())
	}
	return list
}

// quick are options for tests: in no hurry to spare the peer, and not patient.
func quick() verify.Options {
	return verify.Options{Rate: 1e6, Rounds: 2, SettleWait: 10 * time.Millisecond, AsAgent: admin}
}

// compare runs a comparison and returns what differs, sorted.
func (w *world) compare(options verify.Options, reader verify.Reader) (verify.Report, []verify.Difference) {
	w.t.Helper()
	report, differences, err := w.try(w.t.Context(), options, reader)
	if err != nil {
		w.t.Fatal(err)
	}
	return report, differences
}

func (w *world) try(ctx context.Context, options verify.Options, reader verify.Reader) (verify.Report, []verify.Difference, error) {
	w.t.Helper()
	conn, err := w.pool.Acquire(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Release()
	var differences []verify.Difference
	options.OnDifference = func(d verify.Difference) { differences = append(differences, d) }
	report, err := verify.Run(ctx, conn, reader, "a", options)
	slices.SortFunc(differences, func(a, b verify.Difference) int {
		return slices.Compare([]string{string(a.Kind), a.Key, fmt.Sprint(a.Fields)}, []string{string(b.Kind), b.Key, fmt.Sprint(b.Fields)})
	})
	return report, differences, err
}
