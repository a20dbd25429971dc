package page_test

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

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"quorumbox/internal/page"
	"quorumbox/internal/pgtest"
)

// serve returns the page on a database of its own.
func serve(t *testing.T) (*httptest.Server, *pgxpool.Pool) {
	t.Helper()
	pool := pgtest.New(t)
	return serveOn(t, pool), pool
}

func serveOn(t *testing.T, pool *pgxpool.Pool) *httptest.Server {
	t.Helper()
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{ID: "worker-1"})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(page.New(page.Config{Pool: pool, Client: client, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}))
	t.Cleanup(server.Close)
	return server
}

func exec(t *testing.T, pool *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	if _, err := pool.Exec(context.WithoutCancel(t.Context()), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// lead makes River's table say that a worker runs, and ours that two do.
func lead(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	exec(t, pool, `insert into river_leader (name, leader_id, elected_at, expires_at) values ('default', 'test', now(), now() + interval '1 hour')`)
	exec(t, pool, `
		insert into workers (id, host, version, started_at, seen_at) values
			('worker-1', 'node-1', 'quorumbox v1.2.0, go1.26', now() - interval '3 hours 12 minutes', now() + interval '1 hour'),
			('worker-2', 'node-2', 'quorumbox v1.2.0, go1.26', now() - interval '26 minutes', now() + interval '1 hour')`)
}

func addPeers(t *testing.T, pool *pgxpool.Pool, n int) {
	t.Helper()
	exec(t, pool, `insert into peers (id) select 'peer-' || lpad(i::text, 2, '0') from generate_series(1, $1::int) i`, n)
}

// traffic writes, for the last seconds, some entries a second into changing lanes, each in a batch of its own that was decided as verdict says, and had its verdict some
// milliseconds after it was written.
func traffic(t *testing.T, pool *pgxpool.Pool, seconds, perSecond int, verdict, reason string) {
	t.Helper()
	exec(t, pool, `
		with written as (
			insert into outbox (lane, namespace, kind, key, created_at)
			select (s * 7 + i * 5) % 32, 'n', 'delete', 'k', now() - s * interval '1 second' + i * interval '1 second' / $2
			from generate_series($1::int, 1, -1) s, generate_series(1, $2::int + (s % 7)) i
			order by s desc, i
			returning id, lane, created_at
		), numbered as (
			select w.*, row_number() over (partition by lane order by id) as i from written w
		), heads as (
			select f.lane, coalesce(max(b.number), 0) as number, coalesce(max(b.position), 0) as position
			from generate_series(0, 31) f (lane) left join batches b on b.lane = f.lane group by f.lane
		)
		insert into batches (lane, number, entries, first_entry, last_entry, bytes, position, fan_out, leased_until, verdict, reason, needed, acked,
			dispatched_at, decided_at)
		select n.lane, h.number + n.i, array[n.id], n.id, n.id, 1, h.position + n.i, 0, now(), $3, $4, 1, '{}', n.created_at,
		       n.created_at + (6 + 4 * random() + case when random() < 0.02 then 30 else 0 end) * interval '1 millisecond'
		from numbered n join heads h using (lane)`, seconds, perSecond, verdict, reason)
}

// kill makes a peer miss everything of some lanes.
func kill(t *testing.T, pool *pgxpool.Pool, peer string, lanes int) {
	t.Helper()
	exec(t, pool, `
		insert into lagging (peer, lane, cursor, pushed_to, retry, not_before, failures, last_class)
		select $1, f.lane, b.number * f.lane / 32, b.number * f.lane / 32, nextval('tokens'), now() + interval '7 seconds', 9, 'refused_connection'
		from generate_series(0, $2::int - 1) f (lane)
		cross join lateral (select number from batches b where b.lane = f.lane order by number desc limit 1) b
		on conflict (peer, lane) do nothing`, peer, lanes)
	exec(t, pool, `update peers set last_error_class = 'refused_connection', last_error_at = now() - interval '3 seconds' where id = $1`, peer)
}

type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends a request; a body that is a string is sent as it is, anything else as JSON.
func ask(t *testing.T, method, url string, body any, change func(*http.Request)) reply {
	t.Helper()
	var text []byte
	switch b := body.(type) {
	case nil:
	case string:
		text = []byte(b)
	default:
		var err error
		if text, err = json.Marshal(b); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if change != nil {
		change(req)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(got)}
}

func (r reply) String() string { return fmt.Sprintf("%d %.300s", r.status, r.body) }

func addPeer(t *testing.T, pool *pgxpool.Pool, id string) {
	t.Helper()
	exec(t, pool, `insert into peers (id) values ($1)`, id)
}

// works lets the workers have something: fan-outs, a catch-up with three lanes, a repair.
func works(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	exec(t, pool, `update lagging set holder = 900, leased_until = now() + interval '1 hour' where peer = 'peer-02' and lane < 3`)
	exec(t, pool, `
		insert into river_job (kind, state, args, attempted_by, attempt, max_attempts, queue, attempted_at)
		select 'fan_out', 'running'::river_job_state, jsonb_build_object('fan_out', -i), array['worker-' || (1 + i % 2)], 1, 25, 'fan_out', now() from generate_series(1, 5) i
		union all
		select 'peer_retry', 'running', jsonb_build_object('peer', l.peer, 'lane', l.lane, 'retry', l.retry), '{worker-2}'::text[], 1, 25, 'peer_' || l.peer, now()
		from lagging l where l.peer = 'peer-02' and l.lane = 0
		union all
		select 'repair', 'running', '{"peer": "peer-01", "lane": 4}'::jsonb, '{worker-1}'::text[], 1, 25, 'peer_peer-01', now()`)
}

// crowd is a large fleet in which everything that can happen has.
func crowd(t *testing.T, pool *pgxpool.Pool, n int) {
	t.Helper()
	lead(t, pool)
	addPeers(t, pool, n)
	traffic(t, pool, 560, 8, "met", "")
	traffic(t, pool, 50, 1, "not_met", "timeout")
	for i, lanes := range []int{30, 4, 12, 32} {
		kill(t, pool, fmt.Sprintf("peer-%02d", 3+5*i), lanes)
	}
	// One that has only just begun to lag, one that is far behind in few lanes.
	exec(t, pool, `update lagging l set cursor = b.number - 2, pushed_to = b.number from (select lane, max(number) as number from batches group by lane) b
		where l.peer = 'peer-13' and b.lane = l.lane`)
	exec(t, pool, `update outbox set created_at = created_at - interval '5 hours' where id in (select first_entry from batches where number < 30 and lane in (2, 3))`)
	exec(t, pool, `update lagging set cursor = 5, pushed_to = 5, holder = 1, leased_until = now() + interval '1 hour' where peer = 'peer-08'`)
	exec(t, pool, `update peers set last_error_class = 'unauthorized' where id = 'peer-18'`)
	exec(t, pool, `insert into snapshots (peer, reason, phase, settled, pushed, total, started_at) values ('peer-06', 'new', 'memories', true, 12300, 50000, now() - interval '72 seconds')`)
	exec(t, pool, `insert into river_queue (name, created_at, updated_at, paused_at) values ('peer_peer-10', now(), now(), now())`)
	exec(t, pool, `update peers set state = 'absent' where id = 'peer-11'`)
	exec(t, pool, `insert into repairs (peer, subject, key, lane, method, reason) values ('peer-12', 'memory', 'm', 1, 'store', 'doubt')`)
	exec(t, pool, `
		insert into lagging (peer, lane, cursor, pushed_to, holder, leased_until)
		select 'peer-01', l, 0, 0, 77, now() + interval '1 hour' from generate_series(4, 6) l`)
}
